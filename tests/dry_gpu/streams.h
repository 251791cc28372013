// Streams, events, captures and graphs of the dry GPU, for streams.cc and graphs.cc. See dry_gpu.h.
//   Thread: everything here is guarded by all().mutex, but what a graph's run() uses.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "tests/dry_gpu/dry_gpu.h"

namespace dry_gpu {

struct Node {
  std::function<void()> run;
  std::set<size_t> after;  // nodes before it in the list
};
struct Capture {
  cudaStream_t origin = nullptr;
  std::vector<Node> nodes;
  bool ended = false;
};

struct Operation {
  std::function<bool()> ready;  // none: at once
  std::function<void()> run;
};

struct Streams {
  std::mutex mutex;
  std::condition_variable moved;  // something was asked for or has run
  std::set<cudaStream_t> live;
  unsigned created = 0;
};
Streams& all();

// Checks that it lives and is the calling thread's GPU's.
CUstream_st& use(cudaStream_t stream);

}  // namespace dry_gpu

struct CUstream_st {
  int device = 0;
  std::deque<dry_gpu::Operation> queue;  // used with threads alone
  bool at_work = false;
  bool ends = false;
  std::thread worker;
  std::mt19937 random;
  std::shared_ptr<dry_gpu::Capture> capture;  // that it takes part in
  std::set<size_t> last;                      // nodes that its next one comes after
};
struct CUevent_st {
  int device = 0;
  bool timed = true;
  int64_t recorded = 0;                       // calls of cudaEventRecord
  int64_t reached = 0;                        // the last of them that its stream got to
  std::shared_ptr<dry_gpu::Capture> capture;  // of the last call
  std::set<size_t> nodes;
};

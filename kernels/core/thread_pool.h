// ThreadPool: a fixed set of worker threads for one rank's CPU kernels.
//   Thread: run() from one thread at a time: the rank's main thread, or one of CUDA's for halves on
//   the CPU while the main thread waits for the step. Owns its threads.
//   Invariants: the caller is worker 0; a pool of 1 starts no thread at all; run() allocates
//   nothing.
// Work is divided statically (worker index of n), so the same input gives the same bits.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

#include "kernels/core/int_math.h"

namespace spillway {

class ThreadPool {
 public:
  // n_threads >= 1. pin: bind worker i to the i-th CPU this process may run on, from first_cpu on.
  // Throws Error when the system has not that many threads to give.
  explicit ThreadPool(int n_threads, bool pin = false, int first_cpu = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return n_threads_; }

  // Calls body(worker) once for every worker in [0, size()) and returns when all are done.
  // body must not throw.
  template <typename Body>
  void run(Body&& body) {
    using Fn = std::remove_reference_t<Body>;
    run_raw([](void* context, int worker) { (*static_cast<Fn*>(context))(worker); },
            const_cast<void*>(static_cast<const void*>(&body)));
  }

  // Worker's part of [0, n) cut in units of `grain`: contiguous, sizes differ by a unit at most.
  Range part(int worker, int64_t n, int64_t grain = 1) const;

 private:
  void run_raw(void (*call)(void*, int), void* context);

  struct Shared;
  std::unique_ptr<Shared> shared_;
  int n_threads_;
};

}  // namespace spillway

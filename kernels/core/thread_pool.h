// ThreadPool: a fixed set of worker threads for one rank's CPU kernels.
//   Thread: run() from one thread at a time: the rank's main thread, or one of CUDA's for halves on
//   the CPU while the main thread waits for the step. Owns its threads.
//   Invariants: the caller is worker 0; a pool of 1 starts no thread at all; run() allocates
//   nothing.
// part() depends on the worker alone; which worker gets a piece of share() depends on time. Either
// way the same input gives the same bits where an element's result depends on nothing but itself.
#pragma once

#include <chrono>
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

  // Calls body(Range) for pieces that cover [0, n) once, and returns when all are done. A worker
  // begins with its own part(), a piece at a time, and takes then what others have not come to:
  // cores are not equally fast, and some are lent to others for a while. n_workers: the first of
  // them do it all. body must not throw.
  template <typename Body>
  void share(int64_t n, const Body& body) {
    share(n, n_threads_, body);
  }
  template <typename Body>
  void share(int64_t n, int n_workers, const Body& body) {
    deal(n, n_workers);
    run([&](int worker) {
      for (Range piece = next_piece(worker); !piece.empty(); piece = next_piece(worker)) {
        body(piece);
      }
    });
  }

  // How long workers stay awake after their work before they sleep [20 us]: what is longer than the
  // pauses between two runs saves waking them, and costs their cores' time. Not while run() is.
  void stay_awake(std::chrono::microseconds most);

  // Worker's part of [0, n) cut in units of `grain`: contiguous, sizes differ by a unit at most.
  Range part(int worker, int64_t n, int64_t grain = 1) const;

 private:
  void run_raw(void (*call)(void*, int), void* context);
  void deal(int64_t n, int n_workers);
  Range next_piece(int worker);  // empty: none is left

  struct Shared;
  std::unique_ptr<Shared> shared_;
  int n_threads_;
};

}  // namespace spillway

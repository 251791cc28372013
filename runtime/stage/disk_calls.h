// DiskCalls: what a stream that copies halves from disk to a GPU calls on the host, as functions
// that nothing escapes from: one before each copy that returns when the half has been read, one
// after it that gives its slot free. Called by GpuSpill's stream of copies, knows nothing of CUDA.
//
// When a half cannot be read its slot is filled with ones, which weights are read from as NaN
// (MXFP4: as 2^127, whose products overflow), and the step goes on to its end, as steps of a GPU
// do: what comes of it is no number on any rank that it reaches, and no token is drawn from that
// (engine.h). The rank itself throws the Error, at check().
//   Thread: the two calls in the order of the step's halves, one at a time; check() when the step
//   has ended; stop() from any.
#pragma once

#include <array>
#include <cstddef>
#include <exception>
#include <mutex>
#include <vector>

#include "runtime/stage/call_trace.h"
#include "runtime/stage/disk_halves.h"

namespace spillway {

class DiskCalls {
 public:
  // halves: started, and must outlive it. trace: told of waits, unless nullptr.
  explicit DiskCalls(DiskHalves& halves, CallTrace* trace = nullptr);
  DiskCalls(DiskCalls&&) = delete;

  // The calls and what they are given, for the i-th half of every step.
  static void wait(void* turn) noexcept;
  static void release(void* turn) noexcept;
  void* turn(size_t half) { return &turns_[half]; }

  // Throws what wait() met first: an Error that names the file and the half.
  void check() const;
  // Nothing is read any more, and nobody waits: the step at hand ends as if all had failed.
  void stop() { halves_.stop(); }

 private:
  struct Turn {
    DiskCalls* calls = nullptr;
    size_t half = 0;
  };
  // Whether this or an earlier half could not be read.
  bool fails(size_t half);

  DiskHalves& halves_;
  CallTrace* trace_;
  std::vector<Turn> turns_;
  std::array<bool, kDiskSlots> spoilt_{};
  mutable std::mutex mutex_;
  std::exception_ptr failed_;
};

}  // namespace spillway

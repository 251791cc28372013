// Trace: when every kernel and every copy of this process ran, from CUPTI's activity records. The
// nodes of a graph are traced one by one, if the graph was made after start(). CUPTI is opened at
// run time (libcupti is no part of the driver); its header is wanted at build time alone.
//   Owns nothing of the device. One at a time in a process: CUPTI's callbacks know no object.
//   Thread: one; CUPTI hands over what it found from threads of its own.
//   Errors: no libcupti, or it refuses: Error with what to install.
// Never while anything is timed: a traced kernel ends some microseconds later.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/core/device_record.h"

namespace spillway::cuda {

class Trace {
 public:
  // Opens CUPTI; traces nothing yet.
  Trace();
  ~Trace();
  Trace(Trace&&) = delete;

  void start();
  // What has ended since start(): synchronise the device first.
  DeviceTrace stop();
  // The records' clock.
  int64_t now_ns() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace spillway::cuda

// StepTrace: what a rank did in the steps since tracing began: its GPU's kernels and copies, and
// where its host was meanwhile, on the same clock. Made by GpuExecutor, read by bench --profile.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/core/device_record.h"

namespace spillway {

// One run() of the executor on the host.
struct HostSpan {
  int64_t rows = 0;
  int64_t begin_ns = 0;
  int64_t received_ns = 0;  // the stage before has sent its rows
  int64_t launched_ns = 0;  // from here on the host waits for the GPU
  int64_t end_ns = 0;
};

// The host waited for other ranks, outside of run().
struct HostWait {
  int64_t begin_ns = 0;
  int64_t end_ns = 0;
};

struct StepTrace {
  DeviceTrace device;
  std::vector<HostSpan> spans;
  std::vector<HostWait> waits;
};

}  // namespace spillway

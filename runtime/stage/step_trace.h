// StepTrace: what a rank did in the steps since tracing began: on a GPU its kernels and copies, and
// where its host was meanwhile, on the same clock; on a CPU how long it was at what. Made by
// Pipeline and GpuExecutor, read by bench --profile.
#pragma once

#include <array>
#include <cstddef>
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

// What a stream of the GPU called on the host: a half is multiplied there, or the disk waited for.
struct HostCall {
  enum class Kind : uint8_t { kMultiply, kReadDisk };
  Kind kind = Kind::kMultiply;
  int64_t begin_ns = 0;
  int64_t end_ns = 0;
};

// A rank on a CPU: one step, every instant of it at one of these.
enum class CpuWork { kMatrix, kAttention, kCollective, kHop, kWait, kDisk, kOther };
inline constexpr size_t kCpuWorks = 7;
struct CpuSpan {
  int64_t begin_ns = 0;
  int64_t end_ns = 0;
  std::array<int64_t, kCpuWorks> ns{};  // by CpuWork
};

struct StepTrace {
  DeviceTrace device;
  std::vector<HostSpan> spans;
  std::vector<HostWait> waits;
  std::vector<HostCall> calls;
  std::vector<CpuSpan> on_cpu;
};

}  // namespace spillway

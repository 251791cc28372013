// What a GPU did and when, as its tracer (kernels/cuda/trace.h) found it: plain data, so that who
// divides the time by terms needs no GPU.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace spillway {

struct DeviceRecord {
  enum class Kind : uint8_t {
    kKernel,
    kToDevice,
    kToHost,
    kOther
  };  // the others move or set bytes
  Kind kind = Kind::kKernel;
  int32_t name = -1;  // of a kernel: index into DeviceTrace::names
  int64_t bytes = 0;  // of a copy
  int64_t begin_ns = 0;
  int64_t end_ns = 0;
};

struct DeviceTrace {
  std::vector<std::string> names;     // of kernels, as the compiler mangles them
  std::vector<DeviceRecord> records;  // in no order
  int64_t dropped = 0;                // records for which there was no room
};

}  // namespace spillway

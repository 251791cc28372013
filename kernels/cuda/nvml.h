// What the driver says of a GPU's memory, all processes together: NVIDIA's management library,
// opened at run time, which a driver brings along and a machine without GPUs has not.
//   Thread: any. Source: NVML API Reference Guide, nvmlDeviceGetMemoryInfo.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace spillway::cuda {

// Bytes in use on the GPU of this UUID ("GPU-…", as in DeviceInfo), those that the driver keeps for
// itself included; empty when the library is not there or does not answer.
std::optional<int64_t> used_device_bytes(const std::string& uuid);

}  // namespace spillway::cuda

// See nvml.h. The few declarations are written down here, since CUDA's toolkit may come without the
// library's header.
#include "kernels/cuda/nvml.h"

#include <dlfcn.h>

namespace spillway::cuda {
namespace {

using NvmlDevice = struct NvmlDeviceState*;
struct NvmlMemory {
  unsigned long long total, free, used;  // NOLINT(google-runtime-int): the library's types
};

struct Nvml {
  int (*init)() = nullptr;
  int (*by_uuid)(const char*, NvmlDevice*) = nullptr;
  int (*memory)(NvmlDevice, NvmlMemory*) = nullptr;
  bool ready = false;

  // Stays open until the process ends.
  Nvml() {
    void* library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) return;
    const auto find = [library](auto& function, const char* name) {
      function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(library, name));
      return function != nullptr;
    };
    ready = find(init, "nvmlInit_v2") && find(by_uuid, "nvmlDeviceGetHandleByUUID") &&
            find(memory, "nvmlDeviceGetMemoryInfo") && init() == 0;
  }
};

}  // namespace

std::optional<int64_t> used_device_bytes(const std::string& uuid) {
  static const Nvml nvml;
  NvmlDevice device = nullptr;
  NvmlMemory memory{};
  if (!nvml.ready || nvml.by_uuid(uuid.c_str(), &device) != 0) return {};
  if (nvml.memory(device, &memory) != 0) return {};
  return static_cast<int64_t>(memory.used);
}

}  // namespace spillway::cuda

// See gpu_probe.h.
#include "launch/gpu_probe.h"

#include <cstdio>

#include "kernels/core/error.h"
#include "parallel/gpu_ledger.h"
#include "parallel/size_text.h"

#ifdef SPILLWAY_WITH_CUDA
#include "kernels/cuda/bandwidth.h"
#endif

namespace spillway {
namespace {

GpuSpec spec_of(const cuda::DeviceInfo& info) {
  GpuSpec gpu;
  gpu.name = info.name;
  gpu.uuid = info.uuid;
  gpu.ordinal = info.ordinal;
  gpu.major = info.major;
  gpu.minor = info.minor;
  gpu.multiprocessors = info.multiprocessors;
  gpu.total_bytes = info.total_bytes;
  gpu.free_bytes = info.free_bytes;
  return gpu;
}

GpuSpec find_gpu(int local_rank, int n_ranks, const GpuSource& source) {
  const std::vector<cuda::DeviceInfo> devices = source.visible();
  if (devices.empty()) return {};
  const auto mine = static_cast<size_t>(local_rank) % devices.size();
  if (n_ranks > 1) {
    GpuSpec gpu = spec_of(devices[mine]);
    gpu.free_bytes = 0;
    return gpu;
  }
  GpuSpec gpu = spec_of(source.select(devices[mine].ordinal));
  gpu.read_gb_per_s = source.read_gb_per_s();
  return gpu;
}

}  // namespace

GpuSource cuda_gpus() {
  GpuSource source;
#ifdef SPILLWAY_WITH_CUDA
  source.visible = cuda::visible_devices;
  source.select = cuda::select_device;
  source.read_gb_per_s = [] { return cuda::measure_read_gb_per_s(cuda::Stream()); };
#endif
  return source;
}

GpuProbe probe_gpu(DeviceChoice device, int local_rank, int n_ranks, const GpuSource& source) {
  const bool forced = device == DeviceChoice::kGpu;
  if (device == DeviceChoice::kCpu) return {};
  if (!source.visible) {
    if (!forced) return {};
    throw Error("this program was built without CUDA", "--device gpu",
                "build it where nvcc is (cmake --preset release), or use --device cpu");
  }
  try {
    GpuSpec gpu = find_gpu(local_rank, n_ranks, source);
    if (forced && !gpu.present()) {
      throw Error("no GPU: CUDA sees none on this host", "--device gpu",
                  "look at nvidia-smi and CUDA_VISIBLE_DEVICES, or use --device cpu");
    }
    return {gpu, ""};
  } catch (const Error& error) {
    if (forced) throw;
    return {{}, std::string(error.what()) + "; computing on the CPU"};
  }
}

std::string unused_gpu(const Plan& plan, const ModelSpec& model, const ClusterSpec& cluster) {
  if (plan.n_ranks() != 1 || plan.parts[0].gpu) return "";
  const GpuSpec& gpu = cluster.ranks[0].gpu;
  if (!gpu.present()) return "";
  std::string why = gpu_obstacle(model);
  if (why.empty()) {
    why = "its " + size_text(gpu.free_bytes) +
          " of free memory do not hold the plan; --device gpu says what is missing";
  }
  return "GPU " + std::to_string(gpu.ordinal) + " (" + gpu.name + ") is not used: " + why;
}

void print_warning(const std::string& warning) {
  if (!warning.empty()) std::fprintf(stderr, "spillway: warning: %s\n", warning.c_str());
}

}  // namespace spillway

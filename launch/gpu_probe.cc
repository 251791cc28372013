// See gpu_probe.h.
#include "launch/gpu_probe.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <system_error>

#include "kernels/core/error.h"
#include "parallel/cgroup.h"
#include "parallel/gpu_ledger.h"
#include "parallel/size_text.h"

#ifdef SPILLWAY_WITH_CUDA
#include "kernels/cuda/bandwidth.h"
#include "kernels/cuda/device_rates.h"
#include "kernels/cuda/nvml.h"
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
  const std::string node = small_file_text("/sys/bus/pci/devices/" + info.pci + "/numa_node");
  if (!info.pci.empty() && !node.empty()) gpu.numa_node = std::max(-1, std::atoi(node.c_str()));
  return gpu;
}

GpuProbe find_gpu(int seat, const GpuSource& source) {
  const std::vector<cuda::DeviceInfo> devices = source.visible();
  if (devices.empty()) return {};
  const auto mine = static_cast<size_t>(seat) % devices.size();
  GpuProbe found;
  if (source.used_bytes) found.used_before_bytes = source.used_bytes(devices[mine].uuid);
  found.gpu = spec_of(source.select(devices[mine].ordinal));
  return found;
}

constexpr const char* kWithoutCuda = "this program was built without CUDA";
constexpr const char* kBuildIt = "build it where nvcc is, with cmake --preset release";

[[noreturn]] void refuse_without_cuda(const std::string& flag, const std::string& otherwise) {
  throw Error(kWithoutCuda, flag, std::string(kBuildIt) + ", or " + otherwise);
}

}  // namespace

GpuSource cuda_gpus() {
  GpuSource source;
  std::error_code ignored;
  source.driver = std::filesystem::exists("/proc/driver/nvidia/version", ignored);
#ifdef SPILLWAY_WITH_CUDA
  source.visible = cuda::visible_devices;
  source.select = cuda::select_device;
  source.used_bytes = [](const std::string& uuid) {
    return cuda::used_device_bytes(uuid).value_or(0);
  };
  source.read_gb_per_s = [] { return cuda::measure_read_gb_per_s(cuda::Stream()); };
  source.matrix_tflops = [] { return cuda::measure_matrix_tflops(cuda::Stream()); };
  source.launch_gap_us = [] { return cuda::measure_launch_gap_us(cuda::Stream()); };
  source.bus = [](int64_t free_host_bytes) {
    const auto probe = std::make_shared<cuda::BusProbe>(free_host_bytes);
    GpuBus bus;
    bus.pin_gb_per_s = probe->pin_gb_per_s();
    bus.h2d_gb_per_s = probe->h2d_gb_per_s();
    bus.d2h_gb_per_s = probe->d2h_gb_per_s();
    bus.load.start = [probe](double seconds) { probe->start_load(seconds); };
    bus.load.running = [probe] { return probe->loaded(); };
    bus.load.finish = [probe] { return probe->finish_load(); };
    return bus;
  };
#endif
  return source;
}

int gpu_seat(const std::vector<int>& hosts, const PlanRequest& request, int rank) {
  int seat = 0;
  for (int other = 0; other < rank; ++other) {
    const bool here = hosts[static_cast<size_t>(other)] == hosts[static_cast<size_t>(rank)];
    if (here && request.device_of(other) != DeviceChoice::kCpu) ++seat;
  }
  return seat;
}

GpuProbe probe_gpu(DeviceChoice device, int seat, const GpuSource& source) {
  const bool forced = device == DeviceChoice::kGpu;
  if (device == DeviceChoice::kCpu) return {};
  if (!source.visible) {
    if (forced) refuse_without_cuda("--device gpu", "use --device cpu");
    GpuProbe none;
    if (source.driver) {
      none.warning = std::string(kWithoutCuda) + ", so the GPU is not used: " + kBuildIt +
                     ", or pass --device cpu";
    }
    return none;
  }
  try {
    GpuProbe found = find_gpu(seat, source);
    if (forced && !found.gpu.present()) {
      throw Error("no GPU: CUDA sees none on this host", "--device gpu",
                  "look at nvidia-smi and CUDA_VISIBLE_DEVICES, or use --device cpu");
    }
    return found;
  } catch (const Error& error) {
    if (forced) throw;
    GpuProbe none;
    none.warning = std::string(error.what()) + "; computing on the CPU";
    return none;
  }
}

void check_built_with_cuda(const PlanRequest& request, const GpuSource& source) {
  if (source.visible || request.gpu_layers <= 0) return;
  refuse_without_cuda("-ngl " + std::to_string(request.gpu_layers), "leave -ngl out");
}

std::string measure_gpu(GpuSpec& gpu, const GpuSource& source) {
  if (!gpu.present()) return "";
  try {
    gpu.read_gb_per_s = source.read_gb_per_s();
    return "";
  } catch (const Error& error) {
    return gpu.text() + " could not be measured: " + error.what();
  }
}

std::string find_gpus(ClusterSpec& cluster, const PlanRequest& request, const GpuSource& source,
                      bool measure) {
  check_device_list(request.devices, cluster.size());
  check_built_with_cuda(request, source);
  const std::vector<int> hosts(cluster.ranks.size(), 0);
  std::vector<GpuSpec> found;  // by seat, until the first comes again
  bool all = false;
  std::string warning;
  for (RankSpec& rank : cluster.ranks) {
    const DeviceChoice device = request.device_of(rank.rank);
    if (device == DeviceChoice::kCpu) continue;
    const int seat = gpu_seat(hosts, request, rank.rank);
    if (!all) {
      GpuProbe probe = probe_gpu(device, seat, source);
      if (measure && probe.warning.empty()) probe.warning = measure_gpu(probe.gpu, source);
      if (warning.empty()) warning = probe.warning;
      all = !probe.gpu.present() || (!found.empty() && probe.gpu.ordinal == found[0].ordinal);
      if (!all) found.push_back(probe.gpu);
    }
    if (!found.empty()) rank.gpu = found[static_cast<size_t>(seat) % found.size()];
  }
  return warning;
}

namespace {

// "23.19 GiB that are free there", "1.00 GiB of --gpu-memory".
std::string gpu_allowance_text(const Plan& plan, int rank, int64_t free_bytes) {
  const auto r = static_cast<size_t>(rank);
  if (r < plan.budgets.size() && plan.budgets[r].gpu_given) {
    return size_text(plan.budgets[r].gpu_bytes) + " of --gpu-memory";
  }
  return size_text(free_bytes) + " that are free there";
}

}  // namespace

std::vector<std::string> unused_gpus(const Plan& plan, const ModelSpec& model,
                                     const ClusterSpec& measured, const PlanRequest& request) {
  const ClusterSpec cluster = with_shared_gpus(measured);
  const std::string obstacle = gpu_obstacle(model);
  std::vector<std::string> warnings;
  for (const StagePlan& stage : plan.stages) {
    if (plan.on_gpu(stage)) continue;
    const auto without = std::find_if(stage.ranks.begin(), stage.ranks.end(), [&](int rank) {
      return !cluster.ranks[static_cast<size_t>(rank)].gpu.present();
    });
    for (const int rank : stage.ranks) {
      const GpuSpec& gpu = cluster.ranks[static_cast<size_t>(rank)].gpu;
      if (!gpu.present()) continue;
      const std::string who =
          (plan.n_ranks() > 1 ? "rank " + std::to_string(rank) + ": " : "") + gpu.text();
      std::string why = request.gpu_layers == 0 ? "-ngl 0 leaves it alone" : obstacle;
      if (why.empty() && without != stage.ranks.end()) {
        why = "rank " + std::to_string(*without) + " of the same stage computes on its CPU";
      } else if (why.empty()) {
        why = std::string(stage.ranks.size() > 1 ? "its stage" : "the plan") +
              " does not fit the " + gpu_allowance_text(plan, rank, gpu.free_bytes) +
              ", or is slower; --device gpu shows it";
      }
      warnings.push_back(who + " is not used: " + why);
    }
  }
  return warnings;
}

void print_warning(const std::string& warning) {
  if (!warning.empty()) std::fprintf(stderr, "spillway: warning: %s\n", warning.c_str());
}

}  // namespace spillway

// The GPU of a rank, for the plan: which one it is, what it has free, how fast it reads. Called by
// job.cc and verb_plan.cc before they plan. With --device cpu CUDA is not touched at all.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "kernels/cuda/device.h"
#include "parallel/plan.h"
#include "parallel/planner.h"

namespace spillway {

// What the probe asks of CUDA; tests put their own behind it.
struct GpuSource {
  std::function<std::vector<cuda::DeviceInfo>()> visible;  // empty: built without CUDA
  std::function<cuda::DeviceInfo(int)> select;             // by ordinal, with its free bytes
  std::function<double()> read_gb_per_s;                   // of the selected one
};
// CUDA itself, where this program was built with it.
GpuSource cuda_gpus();

struct GpuProbe {
  GpuSpec gpu;          // not present: the rank computes on its CPU
  std::string warning;  // why there is none although a driver is there, or ""
};

// A rank's GPU is number local_rank % count of those that it sees. It is selected, for the calling
// thread, and measured in a job of one rank only, since several ranks compute on CPUs today; theirs
// is named, with 0 bytes free.
//   With kAuto a GPU that cannot be used is a warning. With kGpu no GPU, an old driver and a build
// without CUDA are Errors that say what to do.
GpuProbe probe_gpu(DeviceChoice device, int local_rank, int n_ranks, const GpuSource& source);

// Why a plan made with kAuto leaves a job's only GPU alone, or "".
std::string unused_gpu(const Plan& plan, const ModelSpec& model, const ClusterSpec& cluster);

// "spillway: warning: ..." on stderr; nothing for "".
void print_warning(const std::string& warning);

}  // namespace spillway

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
  std::function<int64_t(const std::string&)> used_bytes;   // by UUID, all processes; may be empty
};
// CUDA itself, where this program was built with it.
GpuSource cuda_gpus();

struct GpuProbe {
  GpuSpec gpu;                    // not present: the rank computes on its CPU
  int64_t used_before_bytes = 0;  // on it by others, before this process had a context there
  std::string warning;            // why there is none although a driver is there, or ""
};

// Which of the ranks of its host that may compute on a GPU this one is, from 0. hosts: a number
// for the host of each rank of the job.
int gpu_seat(const std::vector<int>& hosts, const PlanRequest& request, int rank);

// A rank's GPU is number seat % count of those that it sees. It is selected, for the calling
// thread, and measured. That two ranks got the same one is for the planner to say, which sees the
// UUIDs of all: each rank may see other GPUs than its neighbour.
//   With kAuto a GPU that cannot be used is a warning. With kGpu no GPU, an old driver and a build
// without CUDA are Errors that say what to do.
GpuProbe probe_gpu(DeviceChoice device, int seat, const GpuSource& source);

// The GPUs that a job's ranks would find on this host, where all of the cluster's ranks are taken
// to be, for `plan`; each is measured once. Returns the first rank's warning; Errors as
// probe_gpu's.
std::string find_gpus(ClusterSpec& cluster, const PlanRequest& request, const GpuSource& source);

// Why a plan made with kAuto leaves GPUs alone: a sentence each.
std::vector<std::string> unused_gpus(const Plan& plan, const ModelSpec& model,
                                     const ClusterSpec& measured);

// "spillway: warning: ..." on stderr; nothing for "".
void print_warning(const std::string& warning);

}  // namespace spillway

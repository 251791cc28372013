// The GPU of a rank, for the plan: which one it is, what it has free, how fast it reads. Called by
// job.cc and verb_plan.cc before they plan. With --device cpu CUDA is not touched at all.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "kernels/cuda/device.h"
#include "parallel/host_reads.h"
#include "parallel/plan.h"
#include "parallel/planner.h"

namespace spillway {

// The bus of the selected GPU, measured, and what keeps it busy.
struct GpuBus {
  double pin_gb_per_s = 0;
  double h2d_gb_per_s = 0;
  double d2h_gb_per_s = 0;
  BusLoad load;
};

// What the probe asks of CUDA; tests put their own behind it.
struct GpuSource {
  std::function<std::vector<cuda::DeviceInfo>()> visible;  // empty: built without CUDA
  std::function<cuda::DeviceInfo(int)> select;             // by ordinal, with its free bytes
  std::function<double()> read_gb_per_s;                   // of the selected one, and what follows
  std::function<double()> matrix_tflops;
  std::function<double()> launch_gap_us;
  std::function<GpuBus(int64_t free_host_bytes)> bus;     // held as long as its load is
  std::function<int64_t(const std::string&)> used_bytes;  // by UUID, all processes; may be empty
  bool driver = false;  // NVIDIA's is loaded here, whatever this program was built with
};
// CUDA itself, where this program was built with it.
GpuSource cuda_gpus();

struct GpuProbe {
  GpuSpec gpu;                    // not present: the rank computes on its CPU
  int64_t used_before_bytes = 0;  // on it by others, before this process had a context there
  std::string warning;            // why there is none although a driver is there, or ""; this
                                  // program's being built without CUDA, for one
};

// Which of the ranks of its host that may compute on a GPU this one is, from 0. hosts: a number
// for the host of each rank of the job.
int gpu_seat(const std::vector<int>& hosts, const PlanRequest& request, int rank);

// A rank's GPU is number seat % count of those that it sees. It is selected, for the calling
// thread; its rates are measure_gpu()'s. That two ranks got the same one is for the planner to say,
// which sees the UUIDs of all: each rank may see other GPUs than its neighbour.
//   With kAuto a GPU that cannot be used is a warning. With kGpu no GPU, an old driver and a build
// without CUDA are Errors that say what to do.
GpuProbe probe_gpu(DeviceChoice device, int seat, const GpuSource& source);

// Throws Error where flags want GPUs (-ngl 20; --device gpu is probe_gpu's) of a program that was
// built without CUDA.
void check_built_with_cuda(const PlanRequest& request, const GpuSource& source);

// Measures how fast the selected GPU reads its memory; what is in the way, or "": the plan then
// assumes a rate.
std::string measure_gpu(GpuSpec& gpu, const GpuSource& source);

// The GPUs that a job's ranks would find on this host, where all of the cluster's ranks are taken
// to be, for `plan`; each is selected once, and measured if so asked. Returns the first
// rank's warning; Errors as probe_gpu's.
std::string find_gpus(ClusterSpec& cluster, const PlanRequest& request, const GpuSource& source,
                      bool measure);

// Why a plan made with kAuto, or with -ngl 0, leaves GPUs alone: a sentence each.
std::vector<std::string> unused_gpus(const Plan& plan, const ModelSpec& model,
                                     const ClusterSpec& measured, const PlanRequest& request);

// "spillway: warning: ..." on stderr; nothing for "".
void print_warning(const std::string& warning);

}  // namespace spillway

// See job_notes.h.
#include "launch/job_notes.h"

#include <algorithm>

#include "kernels/core/error.h"
#include "parallel/comm_report.h"
#include "parallel/size_text.h"

namespace spillway {
namespace {

std::string comm_flag(CommChoice comm) { return std::string("--comm ") + comm_choice_name(comm); }

}  // namespace

std::string comm_note(const Plan& plan, CommChoice comm) {
  if (comm == CommChoice::kAuto) return "";
  if (!plan.uses_gpu()) {
    // Through host memory and MPI is how CPUs do it.
    if (comm == CommChoice::kStaged) return "";
    throw Error(comm_flag(comm) + " is a way between GPUs, and this plan has all ranks on CPUs", "",
                "leave --comm out: sums between CPUs go through MPI");
  }
  bool sums = false;
  bool hops = false;
  for (const StagePlan& stage : plan.stages) {
    sums = sums || (plan.on_gpu(stage) && stage.ranks.size() > 1);
    hops = hops || (plan.on_gpu(stage) && plan.stages.size() > 1);
  }
  const bool used = sums || (hops && comm == CommChoice::kStaged);
  return used ? "" : comm_flag(comm) + " does nothing here: no stage has several GPUs";
}

std::string gpu_memory_note(const ClusterSpec& cluster, const PlanRequest& request) {
  const bool some = std::any_of(cluster.ranks.begin(), cluster.ranks.end(),
                                [](const RankSpec& rank) { return rank.gpu.present(); });
  if (some || request.gpu_memory.empty()) return "";
  return "--gpu-memory does nothing here: no rank has a GPU that it may use";
}

std::string threads_note(int threads, int cores, int local_size) {
  if (threads <= cores) return "";
  std::string out = "-t " + std::to_string(threads) + " is more threads than the " +
                    count_text(cores, "core") +
                    " that a rank has here, which is slower; leave -t out to take " +
                    (cores == 1 ? "it" : "these");
  if (local_size > 1) out += " (mpirun --bind-to none lets ranks use cores that are not theirs)";
  return out;
}

std::string spill_folder_note(const Plan& plan, int rank, const std::string& folder,
                              bool in_memory) {
  const int64_t disk = plan.rank_bytes(rank, "", "disk");
  if (!in_memory || disk == 0) return "";
  const int64_t host = plan.rank_bytes(rank, "", "host");
  const int64_t budget = plan.budgets[static_cast<size_t>(rank)].host_bytes;
  const std::string what = "the spill folder lies in memory (tmpfs), not on a disk: the " +
                           size_text(disk) + " of weights there are host memory";
  if (host + disk <= budget) return what + " (" + folder + ")";
  throw Error(what + ", with the " + size_text(host) + " of the others more than the " +
                  size_text(budget) + " that the rank may take",
              "rank " + std::to_string(rank) + ", " + folder,
              "give a folder on a disk by --spill-dir");
}

}  // namespace spillway

// Job notes: what is said of flags that cannot do what they are given for, once a plan or the
// machine is known. Called by job.cc and verb_plan.cc.
#pragma once

#include <string>

#include "parallel/comm_choice.h"
#include "parallel/plan.h"
#include "parallel/planner.h"

namespace spillway {

// --comm is about GPUs. Throws Error where it names a way between GPUs and the plan has none on
// any; returns what to warn of where it has, but nothing goes between two of them, or "".
std::string comm_note(const Plan& plan, CommChoice comm);

// What to warn of where --gpu-memory is given and no rank has a GPU, or "".
std::string gpu_memory_note(const ClusterSpec& cluster, const PlanRequest& request);

// More threads than cores: "" when the pool's `threads` are at most `cores`, this rank's. With
// ranks that are bound to cores the way to more of them is mpirun's.
std::string threads_note(int threads, int cores, int local_size);

// A rank's weights on disk in a folder that is memory (tmpfs): they count as host memory, then.
// Throws Error where the rank's budget of that does not hold them too; returns what to warn of, or
// "" where there are none or the folder lies on a disk.
std::string spill_folder_note(const Plan& plan, int rank, const std::string& folder,
                              bool in_memory);

}  // namespace spillway

// Spill search: which halves of a stage on GPUs leave their memory, and how they are multiplied.
// Called by fit.cc and layout.cc. Pure.
//
// Feed-forward halves go first, spread evenly over the stage's layers so that the bus runs while
// the device works; attention follows as streamed when they are not enough. In steps of few rows
// the CPU (host read rate R while the bus copies) and the bus (rate B) can work at once: the best
// part for the CPU is near R / (R + B), as whole halves in turn or as columns of every half. Where
// the host's budget does not hold them, halves lie on the disk.
#pragma once

#include <array>
#include <vector>

#include "parallel/plan.h"

namespace spillway {

// How feed-forward halves in host memory are multiplied in steps of few rows.
enum class SpillWay {
  kMixed,     // some on the CPU, the others streamed meanwhile
  kHybrid,    // of each some columns on the CPU, the others streamed
  kCpu,       // all on the CPU
  kStreamed,  // all streamed
};
inline constexpr std::array kSpillWays = {SpillWay::kMixed, SpillWay::kHybrid, SpillWay::kCpu,
                                          SpillWay::kStreamed};
const char* spill_way_name(SpillWay way);

// Pins that relieve every rank on a GPU of what it lacks there, by the plan's ledger, and of
// `extra_bytes` (one a stage) more. pins: the user's, whose halves stay where they are. The same
// places for all ranks of a stage. May be too little: then all that can be spilled is. `plan` has
// its weights as the user's pins alone say.
std::vector<PlacePin> spill_pins(const Plan& plan, const ModelSpec& model,
                                 const ClusterSpec& cluster, const std::vector<PlacePin>& pins,
                                 SpillWay way, const std::vector<int64_t>& extra_bytes);

// The same for ranks on CPUs that lack host memory: as few halves as are enough go to the disk,
// feed-forward first.
std::vector<PlacePin> disk_pins(const Plan& plan, const ModelSpec& model,
                                const std::vector<PlacePin>& pins,
                                const std::vector<int64_t>& extra_bytes);

// Sets limits.max_cpu_rows, where a half lies on a CPU beside a GPU, to the most rows with which a
// step is quicker so than with all of its halves streamed: 1 to kMostCpuRows.
inline constexpr int64_t kMostCpuRows = 64;
void choose_cpu_rows(Plan& plan, const ModelSpec& model, const ClusterSpec& cluster);

}  // namespace spillway

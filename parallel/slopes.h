// Slopes: what one more layer takes a stage, and how many it holds, in a few numbers: cuts, and
// which ranks form which stages, are compared by them before plans are laid out. Called by cuts.cc
// and search.cc. Pure.
#pragma once

#include <cstdint>
#include <vector>

#include "parallel/judge.h"

namespace spillway {

// What a stage takes and holds, layer by layer.
struct Slopes {
  double resident_ms = 0;
  double spilled_ms = 0;
  int64_t resident = INT32_MAX;  // layers that fit the devices
  int64_t most = INT32_MAX;      // that fit with all else spilled
  double head_ms = 0;            // whatever the layers

  double ms(int64_t layer) const {
    if (layer < resident) return resident_ms;
    // Beyond all memory: the last resort, still ordered by what is faster.
    return layer < most ? spilled_ms : 1e6 + spilled_ms;
  }
};

// Of the plan's stages.
std::vector<Slopes> all_slopes(const PlanTask& task, const Plan& plan);

// n layers one by one to the stage where they take least, or which is done first with them; one at
// least to each.
std::vector<int64_t> by_slopes(const std::vector<Slopes>& slopes, int64_t n, bool slowest);

// The ways of few ranks to form stages in any order, rank 0 first, the best by the slopes of their
// devices first, so many. found: plans of the same task, for what a rank takes beside layers.
std::vector<Candidate> best_by_slopes(const PlanTask& task, const std::vector<Found>& found,
                                      const std::vector<int>& kinds, size_t most);

}  // namespace spillway

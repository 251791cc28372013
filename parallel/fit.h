// Fit: the ways in which a candidate's parts lie in the memory that there is. Called by search.cc.
// Pure.
#pragma once

#include <span>
#include <vector>

#include "parallel/layout.h"
#include "parallel/spill_search.h"

namespace spillway {

// The candidate's plans, without predictions, the least departure from memory first:
//   1. every stage on GPUs where its ranks may and have them, weights resident; with free shares
//      layers and shares follow speed, and memory where some rank lacks it;
//   2. where that is not enough: the same with weights spilled, in each of these ways;
//   3. and with the stages that lack memory on CPUs instead.
// A plan may still lack memory: shortage() says so. Empty when the request insists on the GPU of a
// rank whose stage cannot compute there.
std::vector<Plan> lay_out(const Candidate& candidate, const PlanTask& task,
                          std::span<const SpillWay> ways);

// Whether one of these plans has the memory that it needs: not all of them are made.
bool some_layout_fits(const Candidate& candidate, const PlanTask& task,
                      std::span<const SpillWay> ways);

}  // namespace spillway

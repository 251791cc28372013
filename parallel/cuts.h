// Cuts: how many layers each stage of a candidate has, and which shares its ranks, where speed
// alone does not decide. Called by search.cc and contexts.cc. Pure.
//
// A layer takes a stage so long while its weights fit the stage's devices, and longer once they are
// spilled, up to what its hosts hold: two slopes and two ends, the same wherever the layer is. So
// the cuts with the least sum of all stages (one sequence, whose stages work one after the other)
// take layers from the least slope up, and those with the least slowest stage (several, in turns)
// give each layer to the stage that is done first. From there cuts are moved as plans are
// predicted.
#pragma once

#include <vector>

#include "parallel/judge.h"

namespace spillway {

// The candidate of this plan with its cuts where the slopes have them: for the least sum, and for
// the least slowest stage (not both: by the objective); those that differ from the plan's. Empty
// where cuts are not free.
std::vector<Candidate> cuts_by_slopes(const PlanTask& task, const Candidate& candidate,
                                      const Plan& plan, bool both);

// Whether the request leaves cuts, and shares, to the planner.
bool cuts_are_free(const PlanTask& task, const Candidate& candidate);

// Whether cuts by speed may not be the best ones: they are free, and some ranks are unlike, wait
// for spilled weights, or compute on CPUs beside GPUs.
bool cuts_matter(const PlanTask& task, const Candidate& candidate, const Plan& plan);

// Moves layers between stages, then shares between unlike ranks of a stage, while that helps. At
// most `tries` candidates are laid out; returns how many were left.
int move_cuts(const PlanTask& task, Found& best, int tries);

// Moves layers away from the stage that lacks most while that helps. True: nothing is lacking.
bool make_cuts_fit(const PlanTask& task, Candidate& candidate);

}  // namespace spillway

// Search: the candidates of a task, laid out and judged. Called by planner.cc and explain.cc. Pure.
//
// Up to six ranks every composition of them into stages is tried. Beyond, a dynamic programme over
// the ranks in their order finds the best ones: with layers by speed, a stage adds to a step one
// pass over all weights at the speed of all ranks together, its layers' launches and sums, and a
// hop, whatever the other stages are. The best of these and all equal stages are laid out.
#pragma once

#include <vector>

#include "parallel/judge.h"

namespace spillway {

// All that was laid out: the best first, then what fits by score, then what does not by what it
// lacks. Empty when the request insists on GPUs where a stage cannot compute on them.
// task.request.context is the context. Where the best one spills and the request lets the planner
// choose, steps of fewer rows are tried for it.
std::vector<Found> search(const PlanTask& task);

// Tokens a step on a GPU that are tried, the request's first: long steps read prompts faster, their
// activations take memory from weights.
std::vector<int64_t> step_rows(const PlanRequest& request);

}  // namespace spillway

// Candidates: which ranks may form which stages. Called by search.cc and planner.cc. Pure.
#pragma once

#include <vector>

#include "parallel/layout.h"

namespace spillway {

// All ways to write n as an ordered sum of at most `most` parts, each a stage of equal shares:
// fewer parts first, then larger first parts.
std::vector<std::vector<StagePin>> compositions(int n, int64_t most);

// What the request leaves open, in the order in which ties are decided: fewer stages first.
std::vector<Candidate> candidates(const PlanTask& task);

// The ranks as stages take them: the request's order; as they are where it names things by rank or
// stage; else rank 0, which leads the job, and the others by device, host, speed and GPU memory:
// those on GPUs first and, where there are others too, last, so that the head may lie on one. Of up
// to four ranks all other orders follow.
std::vector<std::vector<int>> rank_orders(const PlanTask& task);

// Whether the request leaves open which ranks form which stages, in which order.
bool ranks_are_free(const PlanTask& task);
// By rank a number, the same for ranks that differ in name alone: of device, host, speed and
// memory they are alike.
std::vector<int> rank_kinds(const PlanTask& task);

}  // namespace spillway

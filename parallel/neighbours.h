// Neighbours: a candidate with one rank somewhere else. Called by search.cc, which improves by them
// what it found in sorted orders. Pure.
#pragma once

#include <vector>

#include "parallel/layout.h"

namespace spillway {

// The candidates that differ by one step: two ranks of different kinds and stages in each other's
// place; a rank in another stage; a rank in a stage of its own, at most `most_stages` in all. Rank
// 0 stays in the first stage, at its front. Layers and shares are free. kinds: by rank, the same
// for ranks that differ in name alone.
std::vector<Candidate> neighbours(const Candidate& candidate, const std::vector<int>& kinds,
                                  int64_t most_stages);

}  // namespace spillway

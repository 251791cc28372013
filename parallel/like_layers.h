// Like layers: which layers of a stage are the same to its ranks. Models have few kinds of layers,
// and rounding gives a rank few sizes of parts: what the one layer takes of memory and time the
// other does. Called where plans are compared by the hundred (ledger.cc, stage_clock.cc). Pure.
#pragma once

#include <cstddef>
#include <vector>

#include "parallel/plan.h"

namespace spillway {

// The same matrices, biases, norms and window.
bool same_layer(const LayerSpec& a, const LayerSpec& b);
// Parts of the same sizes in the same places.
bool same_size(const LayerPart& a, const LayerPart& b);

// Of each half of the stage's layers, attention and feed-forward in turn, the first one that is the
// same work for each of these ranks of the stage; itself where none before it is.
std::vector<size_t> like_halves(const Plan& plan, const ModelSpec& model, const StagePlan& stage,
                                const std::vector<int>& ranks);

}  // namespace spillway

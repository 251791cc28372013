// Pins: what a user fixes of a plan beside tp, pp and split: --layers, -ts, --order, -ngl; and
// plans and requests turned back into flags. Called by planner.cc, explain.cc and launch/. Pure.
#pragma once

#include <string>
#include <vector>

#include "parallel/planner.h"

namespace spillway {

// Layers, shares, order and gpu_layers agree with each other, the ranks and the model. Throws Error
// that says what would do.
void check_pins(const ModelSpec& model, const ClusterSpec& cluster, const PlanRequest& request);

// llama.cpp's -ngl N: the last N layers lie on GPUs; of the others feed-forward halves are
// multiplied by the CPU, and attention, which stays beside its cache, is streamed. -1: none.
std::vector<PlacePin> gpu_layer_pins(const ModelSpec& model, int64_t gpu_layers);

// The flags that make this request: "--tp 2 -c 4096"; "" when it asks for nothing.
std::string request_flags(const PlanRequest& request);

// Where the halves that are not resident lie, as --place says it: equal layers as one range.
std::vector<PlacePin> places_of(const Plan& plan);

// "attn of 3 layers streamed, ffn of 12 layers hybrid 0.62"; "" when all weights are resident.
std::string spill_text(const Plan& plan);

// The request that pins all that a plan chose: split, places, order, context, KV type, devices,
// tokens a step and rows up to which halves on the CPU are multiplied there.
PlanRequest pins_of(const Plan& plan);

}  // namespace spillway

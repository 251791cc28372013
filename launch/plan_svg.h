// A plan as a drawing: a bar for every memory of every rank, to scale in bytes, with its layers as
// blocks in the colours of where their halves lie. Called by `plan --svg`.
#pragma once

#include <string>

#include "parallel/plan.h"

namespace spillway {

// The cluster is as measured: names and budgets of memories.
std::string plan_svg(const Plan& plan, const ModelSpec& model, const ClusterSpec& cluster);

// Throws Error when the file cannot be written.
void write_plan_svg(const std::string& path, const Plan& plan, const ModelSpec& model,
                    const ClusterSpec& cluster);

}  // namespace spillway

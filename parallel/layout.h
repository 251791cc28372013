// Layout: one candidate of the planner made into a plan: who computes on what, layers and shares,
// parts, ledger, prediction. Called by planner.cc only. Pure.
#pragma once

#include <optional>
#include <vector>

#include "parallel/planner.h"

namespace spillway {

// Stages by their ranks; shares are the user's or, with free_shares, follow the ranks' speed.
struct Candidate {
  std::vector<StagePin> stages;
  bool free_shares = true;
};

// Every stage computes on its ranks' GPUs when all of them may and have one, and when these hold
// their parts, or the request insists; else on the CPU. With free_shares, layers and shares follow
// speed, and where some rank of a plan with GPUs then lacks memory they follow memory instead. The
// plan may still lack memory. Nothing when the request insists on the GPU of a rank whose stage
// cannot compute there.
std::optional<Plan> lay_out(const Candidate& candidate, const ModelSpec& model,
                            const ClusterSpec& cluster, const PlanRequest& request);

}  // namespace spillway

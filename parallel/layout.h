// Layout: one candidate of the planner made into a plan, when everything that it leaves open has
// been chosen: layers and shares, parts, places, ledger. Called by fit.cc and planner.cc only.
// Pure.
#pragma once

#include <vector>

#include "parallel/planner.h"

namespace spillway {

// Stages by their ranks; shares are the user's or, with free_shares, follow the ranks' speed.
struct Candidate {
  std::vector<StagePin> stages;
  bool free_shares = true;
  std::vector<int> order;  // the ranks as the stages take them, in turn
};

// What a plan is made for: a checked request, and the cluster with like ranks equal and shared GPUs
// divided.
struct PlanTask {
  const ModelSpec& model;
  const ClusterSpec& cluster;
  PlanRequest request;
  std::vector<RankBudget> budgets;  // by rank
  // Nothing fits otherwise: halves of stages on CPUs may go to the disk.
  bool disk_for_cpus = false;
  // Beside what the request leaves open: known to hold the context.
  std::vector<Candidate> holders = {};
};

// What a candidate leaves open.
struct Choices {
  std::vector<bool> on_gpu;          // by stage
  std::vector<double> speeds;        // by rank
  bool free_speeds = true;           // not the user's -ts
  std::vector<int64_t> most_layers;  // by stage; where the candidate pins none
  std::vector<PlacePin> spills;      // beside the request's own
};

// Stage of each rank.
std::vector<size_t> stages_of(const Candidate& candidate);

// Relative speed of each rank where it computes: its measured read rate; 1 for all where they
// hardly differ or were not all measured. Of ranks whose speed the user gave, that.
std::vector<double> rank_speeds(const Candidate& candidate, const std::vector<bool>& on_gpu,
                                const PlanTask& task);

// Measured rates nearer than this are one speed: probes on a busy host scatter by as much, and the
// same hosts should get the same plan tomorrow.
inline constexpr double kSameSpeed = 1.2;

// All of a plan but its prediction; the ledger as sums.
Plan lay_out_with(const Candidate& candidate, const Choices& choices, const PlanTask& task);

}  // namespace spillway

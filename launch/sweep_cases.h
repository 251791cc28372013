// The configurations that `sweep` compares: legal splits, KV types, parts of the weights off the
// GPUs and the ways they are multiplied; or, for --offload, the same plan with more and more layers
// on the GPU. Pure: the same list on every rank.
#pragma once

#include <string>
#include <vector>

#include "parallel/planner.h"

namespace spillway {

struct SweepCase {
  std::string name;     // "TP2, q8_0, ffn 50 % hybrid"
  double on_gpu = 1;    // share of the layers' weight bytes that lie in GPU memory
  PlanRequest request;  // pinned: make_plan gives `plan`
  Plan plan;
  bool control = false;  // not among the best, measured to see whether the prediction is right
};

struct SweepRequest {
  PlanRequest base;  // what all have in common
  std::vector<std::vector<StagePin>> splits;
  std::vector<KvType> kv_types = {KvType::kF16};
  std::vector<double> spilled = {0};  // shares of the feed-forward halves
  std::vector<Place> places = {Place::kCpu, Place::kStreamed, Place::kHybrid};
};

struct SweepCases {
  std::vector<SweepCase> cases;      // those that fit, in the order of the request
  std::vector<std::string> refused;  // "TP1, f16: rank 0 needs 39.6 GiB …"
};

// Every combination of the request that the planner accepts. Splits without a GPU have no spill.
SweepCases sweep_cases(const ModelSpec& model, const ClusterSpec& cluster,
                       const SweepRequest& request);

// The share of the layers on the GPU from 0 (all on the CPU) to 1 in n steps: the others'
// feed-forward halves lie on the host, in the way that is predicted to be fastest; what does not
// fit is refused.
SweepCases offload_cases(const ModelSpec& model, const ClusterSpec& cluster,
                         const PlanRequest& base, int n);

// Pins that spill this share of the feed-forward halves, spread evenly over n layers.
std::vector<PlacePin> spread_pins(int64_t n_layers, double share, Place place, double cpu_share);

// The `best` fastest in predicted decode, and `controls` of the others, evenly spaced from the next
// to the slowest; fastest first.
std::vector<SweepCase> choose_cases(std::vector<SweepCase> cases, int64_t best, int64_t controls);

// Spearman's rank correlation of two equally long lists, mean ranks for ties; 0 for fewer than two
// values or when all of one are equal. Spearman 1904.
double rank_correlation(const std::vector<double>& a, const std::vector<double>& b);

}  // namespace spillway

// See planner.h. A plan is made in three steps: candidates (which ranks form which stages), their
// layout (layout.cc), and the choice. Called by the coordinator, by `plan` and `verify`; never
// looks at the machine it runs on.
#include "parallel/planner.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "kernels/core/check.h"
#include "kernels/core/error.h"
#include "parallel/layout.h"
#include "parallel/plan_request_check.h"
#include "parallel/shortage.h"

namespace spillway {
namespace {

// Up to here every composition of the ranks into stages is tried (2^(n-1) of them), beyond only
// equal stages.
constexpr int kAllCompositions = 6;
// A later candidate must be predicted this much faster; earlier ones have fewer stages.
constexpr double kWorthIt = 1.02;

StagePin even_stage(int ranks) {
  return StagePin{0, std::vector<double>(static_cast<size_t>(ranks), 1.0)};
}

std::vector<StagePin> even_stages(int tp, int pp) {
  return std::vector<StagePin>(static_cast<size_t>(pp), even_stage(tp));
}

// All ways to write n as an ordered sum of at most `most` parts: fewer parts first, then larger
// first parts.
std::vector<std::vector<StagePin>> compositions(int n, int64_t most) {
  std::vector<std::vector<StagePin>> all;
  std::vector<StagePin> stages;
  const auto extend = [&](auto&& self, int left, int64_t parts) -> void {
    if (parts == 1) {
      stages.push_back(even_stage(left));
      all.push_back(stages);
      stages.pop_back();
      return;
    }
    for (int first = left - static_cast<int>(parts) + 1; first >= 1; --first) {
      stages.push_back(even_stage(first));
      self(self, left - first, parts - 1);
      stages.pop_back();
    }
  };
  for (int64_t parts = 1; parts <= std::min<int64_t>(n, most); ++parts) extend(extend, n, parts);
  return all;
}

std::vector<Candidate> candidates(const ModelSpec& model, int n_ranks, const PlanRequest& request) {
  std::vector<Candidate> list;
  if (!request.split.empty()) {
    list.push_back({request.split, false});
  } else if (request.tp > 0 || request.pp > 0) {
    const int tp = request.tp > 0 ? request.tp : n_ranks / request.pp;
    list.push_back({even_stages(tp, n_ranks / tp), true});
  } else if (n_ranks <= kAllCompositions) {
    for (auto& stages : compositions(n_ranks, model.n_layers)) {
      list.push_back({std::move(stages), true});
    }
  } else {
    for (int pp = 1; pp <= n_ranks && pp <= model.n_layers; ++pp) {
      if (n_ranks % pp == 0) list.push_back({even_stages(n_ranks / pp, pp), true});
    }
  }
  return list;
}

}  // namespace

Plan make_plan(const ModelSpec& model, const ClusterSpec& measured, const PlanRequest& request) {
  const ClusterSpec cluster = with_shared_gpus(like_ranks_equal(measured));
  check_model(model);
  check_request(model, cluster, request);
  Plan best;
  Shortage best_shortage;
  for (const Candidate& candidate : candidates(model, cluster.size(), request)) {
    std::optional<Plan> plan = lay_out(candidate, model, cluster, request);
    if (!plan) continue;
    const Shortage lack = shortage(*plan, cluster);
    const bool first = best.parts.empty();
    const bool fits_better = best_shortage.bytes > 0 && lack.bytes < best_shortage.bytes;
    const bool faster = lack.bytes <= 0 && best_shortage.bytes <= 0 &&
                        plan->prediction.total_ms * kWorthIt < best.prediction.total_ms;
    if (!first && !fits_better && !faster) continue;
    best = std::move(*plan);
    best_shortage = lack;
  }
  if (best.parts.empty()) refuse_mixture(cluster, request);
  if (best_shortage.bytes > 0) too_little_memory(best, model, cluster, best_shortage);
  return best;
}

std::vector<std::vector<StagePin>> all_splits(const ModelSpec& model, int n_ranks, bool uneven) {
  CHECK_GE(n_ranks, 1);
  std::vector<std::vector<StagePin>> splits;
  for (const auto& even : compositions(n_ranks, model.n_layers)) {
    splits.push_back(even);
    if (!uneven) continue;
    std::vector<StagePin> skewed = even;
    bool changed = false;
    for (StagePin& pin : skewed) {
      if (pin.shares.size() < 2) continue;
      pin.shares[0] = 2;
      changed = true;
    }
    if (changed) splits.push_back(std::move(skewed));
  }
  return splits;
}

}  // namespace spillway

// Rivals of a plan: everything that a user could have pinned instead, one after the other, for the
// test and the bench that no pinned plan is better than the planner's own.
#pragma once

#include <algorithm>
#include <functional>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "parallel/candidates.h"
#include "parallel/contexts.h"
#include "parallel/pins.h"
#include "parallel/plan_request_check.h"
#include "parallel/search.h"
#include "tests/parallel/random_cases.h"

namespace spillway::testing {

// A plan for a pinned request, without the search for the nearest where there is none.
class PinnedPlans {
 public:
  explicit PinnedPlans(const RandomCase& of)
      : of_(of), cluster_(with_shared_gpus(like_ranks_equal(of.cluster))) {}

  std::optional<Plan> plan(const PlanRequest& request) const {
    PlanTask task{of_.model, cluster_, request,
                  budgets_of(cluster_, request.gpu_memory, request.host_memory)};
    if (request.objective == Objective::kContext && request.context == 0) {
      task.request.context = longest_context(task, most_context(of_.model)).tokens;
      if (task.request.context == 0) return {};
    }
    std::optional<Plan> best;
    for (const bool disk : {false, true}) {
      task.disk_for_cpus = disk;
      std::vector<Found> found = search(task);
      if (found.empty() || !fits(found[0])) continue;
      const Objective objective = request.objective;
      if (!best || plan_score(found[0].plan, objective) < plan_score(*best, objective)) {
        best = std::move(found[0].plan);
      }
      if (spill_text(*best).find("disk") == std::string::npos) break;
    }
    return best;
  }

 private:
  const RandomCase& of_;
  const ClusterSpec cluster_;
};

// How many times as good the second plan is: as fast by the objective; the longer of two contexts,
// the faster where they are the same. Shorter steps trade reading for memory, so a plan with other
// steps is better only where as many tokens read as written take no longer.
inline double times_better(const Plan& plan, const Plan& other, Objective objective) {
  if (objective == Objective::kContext && other.kv.context != plan.kv.context) {
    return static_cast<double>(other.kv.context) / static_cast<double>(plan.kv.context);
  }
  const auto both = [](const Prediction& p) {
    return 1 / p.decode_tok_per_s + 1 / p.prefill_tok_per_s;
  };
  const bool steps = other.limits.max_rows != plan.limits.max_rows;
  const bool slower = both(other.prediction) > both(plan.prediction);
  if (objective != Objective::kThroughput && steps && slower) return 1;
  return plan_score(plan, objective) / plan_score(other, objective);
}

// Calls `take` with every way to write n as a sum of `parts` numbers of 1 or more; of more than
// `most` ways those with steps of several.
inline void each_cut(int64_t n, size_t parts, int64_t step,
                     const std::function<void(const std::vector<int64_t>&)>& take) {
  std::vector<int64_t> cut;
  const auto extend = [&](auto&& self, int64_t left) -> void {
    if (cut.size() + 1 == parts) {
      cut.push_back(left);
      take(cut);
      cut.pop_back();
      return;
    }
    const auto after = static_cast<int64_t>(parts - cut.size()) - 1;
    for (int64_t mine = 1; mine <= left - after;) {
      cut.push_back(mine);
      self(self, left - mine);
      cut.pop_back();
      // The greatest as well.
      mine = mine < left - after ? std::min(mine + step, left - after) : mine + 1;
    }
  };
  extend(extend, n);
}

// Shares that are tried of a stage's ranks: even, by memory, by speed, and some in between.
inline std::vector<std::vector<double>> share_tries(const ClusterSpec& cluster,
                                                    const std::vector<int>& ranks) {
  const std::vector<double> ones(ranks.size(), 1.0);
  if (ranks.size() < 2) return {ones};
  std::vector<std::vector<double>> out = {ones};
  const auto add = [&](const std::function<double(const RankSpec&)>& of) {
    std::vector<double> shares;
    for (const int rank : ranks) shares.push_back(of(cluster.ranks[static_cast<size_t>(rank)]));
    if (std::find(out.begin(), out.end(), shares) == out.end()) out.push_back(shares);
  };
  add([](const RankSpec& r) { return r.gpu.present() ? r.gpu.read_gb_per_s : r.read_gb_per_s; });
  add([](const RankSpec& r) {
    return static_cast<double>(r.gpu.present() ? r.gpu.free_bytes : r.memory_free_bytes) / kGiB;
  });
  for (size_t i = 0; i < ranks.size(); ++i) {
    std::vector<double> shares = ones;
    shares[i] = 3;
    out.push_back(shares);
  }
  return out;
}

// Every order, composition, cut, some shares, and each stage with GPUs on these or on CPUs: `take`
// gets the requests that pin them.
inline void each_split(const RandomCase& of, int64_t step,
                       const std::function<void(const PlanRequest&)>& take) {
  const int n = of.cluster.size();
  std::vector<int> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  const auto pin_shares = [&](auto&& self, PlanRequest request, size_t s, size_t at) -> void {
    if (s == request.split.size()) return take(request);
    const auto begin = order.begin() + static_cast<int64_t>(at);
    const size_t size = request.split[s].shares.size();
    const std::vector<int> ranks(begin, begin + static_cast<int64_t>(size));
    const bool gpu = std::all_of(ranks.begin(), ranks.end(), [&](int rank) {
      return of.cluster.ranks[static_cast<size_t>(rank)].gpu.present();
    });
    for (const DeviceChoice device : {DeviceChoice::kGpu, DeviceChoice::kCpu}) {
      if (device == DeviceChoice::kGpu && !gpu) continue;
      for (const int rank : ranks) request.devices[static_cast<size_t>(rank)] = device;
      for (auto& shares : share_tries(of.cluster, ranks)) {
        request.split[s].shares = shares;
        self(self, request, s + 1, at + size);
      }
    }
  };
  do {
    for (const std::vector<StagePin>& stages : compositions(n, of.model.n_layers)) {
      each_cut(of.model.n_layers, stages.size(), step, [&](const std::vector<int64_t>& cut) {
        PlanRequest request = of.request;
        request.order = order;
        request.devices.assign(static_cast<size_t>(n), DeviceChoice::kAuto);
        request.split = stages;
        for (size_t s = 0; s < cut.size(); ++s) request.split[s].n_layers = cut[s];
        pin_shares(pin_shares, request, 0, 0);
      });
    }
  } while (std::next_permutation(order.begin() + 1, order.end()));
}

}  // namespace spillway::testing

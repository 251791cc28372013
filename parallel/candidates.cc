// See candidates.h.
#include "parallel/candidates.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "parallel/cost.h"
#include "parallel/gpu_ledger.h"
#include "parallel/group_sum.h"
#include "parallel/rates.h"
#include "parallel/stage_clock.h"

namespace spillway {
namespace {

// Up to here every composition of the ranks into stages is tried (2^(n-1) of them).
constexpr int kAllCompositions = 6;
// Beyond, so many of the dynamic programme's.
constexpr size_t kBestCompositions = 6;
// Of so few ranks every order is tried that differs by more than the names of equal ones.
constexpr size_t kAllOrders = 4;
// A guess of a hop, for the comparison alone.
constexpr double kHopMs = 0.05;

StagePin even_stage(int ranks) {
  return StagePin{0, std::vector<double>(static_cast<size_t>(ranks), 1.0)};
}

std::vector<StagePin> even_stages(int tp, int pp) {
  return std::vector<StagePin>(static_cast<size_t>(pp), even_stage(tp));
}

bool may_use_gpu(const PlanTask& task, int rank) {
  return task.cluster.ranks[static_cast<size_t>(rank)].gpu.present() &&
         task.request.device_of(rank) != DeviceChoice::kCpu && gpu_obstacle(task.model).empty();
}

// Stages over the ranks in their order, with what they add to a step.
class StageProgramme {
 public:
  StageProgramme(const PlanTask& task, const std::vector<int>& order) : task_(task), order_(order) {
    for (const int rank : order) {
      gpu_.push_back(may_use_gpu(task, rank));
      speed_.push_back(rates_of(task.cluster.ranks[static_cast<size_t>(rank)], gpu_.back()).read);
      all_speed_ += speed_.back();
    }
    LayerPart whole;
    whole.heads = {0, task.model.n_heads};
    whole.kv_heads = {0, task.model.n_kv_heads};
    whole.ff = {0, task.model.ff_dim};
    for (const LayerSpec& layer : task.model.layers) {
      bytes_ += static_cast<double>(attention_weight_bytes(task.model, layer, whole) +
                                    feed_forward_weight_bytes(task.model, layer, whole));
    }
  }

  // The best ways, least first; each the sizes of its stages.
  std::vector<std::vector<int>> best(size_t n_best) const {
    const size_t n = order_.size();
    const std::vector<std::vector<double>> stage_ms = all_stages();
    std::vector<std::vector<Partial>> at(n + 1);
    at[0] = {Partial{}};
    for (size_t end = 1; end <= n; ++end) {
      for (size_t begin = 0; begin < end; ++begin) {
        if (stage_ms[begin].size() < end - begin) continue;
        const double ms = stage_ms[begin][end - begin - 1];
        for (size_t i = 0; i < at[begin].size(); ++i) {
          const Partial& before = at[begin][i];
          if (before.stages >= task_.model.n_layers) continue;
          at[end].push_back({before.ms + ms, before.stages + 1, begin, i});
        }
      }
      std::stable_sort(at[end].begin(), at[end].end(),
                       [](const Partial& a, const Partial& b) { return a.ms < b.ms; });
      if (at[end].size() > n_best) at[end].resize(n_best);
    }
    std::vector<std::vector<int>> out;
    for (const Partial& partial : at[n]) {
      std::vector<int> sizes;
      size_t end = n;
      for (const Partial* p = &partial; end > 0; p = &at[end][p->before]) {
        sizes.insert(sizes.begin(), static_cast<int>(end - p->begin));
        end = p->begin;
      }
      out.push_back(std::move(sizes));
    }
    return out;
  }

 private:
  // Stages up to some rank.
  struct Partial {
    double ms = 0;
    int64_t stages = 0;
    size_t begin = 0;   // of the last one
    size_t before = 0;  // which of the partials that end there
  };

  // Of each rank the stages that begin with it, of one rank, two and so on, with what they add.
  // Ranks with GPUs and ranks without do not share a stage by choice.
  std::vector<std::vector<double>> all_stages() const {
    const size_t n = order_.size();
    std::vector<std::vector<double>> out(n);
    GrowingReach reach(task_.cluster, order_);
    for (size_t begin = 0; begin < n; ++begin) {
      double speed = 0;
      for (size_t end = begin + 1; end <= n && gpu_[end - 1] == gpu_[begin]; ++end) {
        end == begin + 1 ? reach.begin(begin) : reach.grow();
        speed += speed_[end - 1];
        out[begin].push_back(stage_ms(end - begin, gpu_[begin], speed, reach.reach()));
      }
    }
    return out;
  }

  double stage_ms(size_t n_ranks, bool gpu, double speed, const GroupReach& reach) const {
    const double layers = static_cast<double>(task_.model.n_layers) * speed / all_speed_;
    const double layer_ms =
        layer_launch_ms(gpu, n_ranks) +
        2 * group_sum_ms(task_.cluster, reach, n_ranks, gpu, 1, task_.model.dim);
    return bytes_ / (all_speed_ * 1e6) + layers * layer_ms + kHopMs;
  }

  const PlanTask& task_;
  const std::vector<int>& order_;
  std::vector<bool> gpu_;
  std::vector<double> speed_;
  double all_speed_ = 0;
  double bytes_ = 0;
};

bool same_shape(const std::vector<StagePin>& a, const std::vector<StagePin>& b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](auto& x, auto& y) {
           return x.shares.size() == y.shares.size();
         });
}

// Equal stages, and the best of the others.
std::vector<std::vector<StagePin>> of_many(const PlanTask& task, const std::vector<int>& order) {
  const auto n = static_cast<int>(order.size());
  std::vector<std::vector<StagePin>> all;
  for (int pp = 1; pp <= n && pp <= task.model.n_layers; ++pp) {
    if (n % pp == 0) all.push_back(even_stages(n / pp, pp));
  }
  for (const std::vector<int>& sizes : StageProgramme(task, order).best(kBestCompositions)) {
    std::vector<StagePin> stages;
    for (const int size : sizes) stages.push_back(even_stage(size));
    const bool there = std::any_of(all.begin(), all.end(),
                                   [&](const auto& other) { return same_shape(other, stages); });
    if (!there) all.push_back(std::move(stages));
  }
  return all;
}

// So many stages, as even as can be.
std::vector<StagePin> stages_of_number(int n_ranks, int n_stages) {
  std::vector<StagePin> stages;
  for (int s = 0; s < n_stages; ++s) {
    stages.push_back(even_stage(n_ranks / n_stages + (s < n_ranks % n_stages ? 1 : 0)));
  }
  return stages;
}

std::vector<std::vector<StagePin>> free_stages(const PlanTask& task,
                                               const std::vector<int>& order) {
  const PlanRequest& request = task.request;
  const auto n = static_cast<int>(order.size());
  if (request.tp > 0 || request.pp > 0) {
    const int tp = request.tp > 0 ? request.tp : n / request.pp;
    return {even_stages(tp, n / tp)};
  }
  std::vector<std::vector<StagePin>> all =
      n <= kAllCompositions ? compositions(n, task.model.n_layers) : of_many(task, order);
  if (request.layers.empty()) return all;
  std::erase_if(all, [&](const auto& stages) { return stages.size() != request.layers.size(); });
  if (all.empty()) all.push_back(stages_of_number(n, static_cast<int>(request.layers.size())));
  return all;
}

}  // namespace

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

namespace {

// What tells ranks apart when they are put in order.
struct RankKind {
  bool gpu = false;
  int host = 0;             // the first of its ranks
  long level = 0;           // of speed
  int64_t total_bytes = 0;  // of its GPU: what is free changes from day to day
  bool operator==(const RankKind&) const = default;
};

RankKind kind_of(const PlanTask& task, int rank) {
  const auto& ranks = task.cluster.ranks;
  const RankSpec& spec = ranks[static_cast<size_t>(rank)];
  RankKind kind;
  kind.gpu = may_use_gpu(task, rank);
  while (ranks[static_cast<size_t>(kind.host)].host != spec.host) ++kind.host;
  kind.level = std::lround(std::log(rates_of(spec, kind.gpu).read) / std::log(kSameSpeed));
  kind.total_bytes = kind.gpu ? spec.gpu.total_bytes : 0;
  return kind;
}

// Things by rank or by stage.
bool names_ranks(const PlanRequest& request) {
  return !request.split.empty() || !request.layers.empty() || !request.shares.empty() ||
         !request.devices.empty();
}

// The others of few ranks, those of a kind always in their order. Rank 0 stays.
void add_other_orders(const std::vector<RankKind>& kinds, std::vector<std::vector<int>>& orders) {
  std::vector<int> order(kinds.size());
  std::iota(order.begin(), order.end(), 0);
  do {
    bool in_order = true;
    for (size_t i = 1; i < order.size(); ++i) {
      for (size_t j = i + 1; j < order.size(); ++j) {
        const bool alike =
            kinds[static_cast<size_t>(order[i])] == kinds[static_cast<size_t>(order[j])];
        if (alike && order[i] > order[j]) in_order = false;
      }
    }
    if (in_order && std::find(orders.begin(), orders.end(), order) == orders.end()) {
      orders.push_back(order);
    }
  } while (std::next_permutation(order.begin() + 1, order.end()));
}

}  // namespace

bool ranks_are_free(const PlanTask& task) {
  const PlanRequest& request = task.request;
  return request.order.empty() && !names_ranks(request) && request.tp == 0 && request.pp == 0;
}

std::vector<int> rank_kinds(const PlanTask& task) {
  std::vector<RankKind> seen;
  std::vector<int> kinds;
  for (const RankSpec& rank : task.cluster.ranks) {
    const RankKind kind = kind_of(task, rank.rank);
    const auto found = std::find(seen.begin(), seen.end(), kind);
    kinds.push_back(static_cast<int>(found - seen.begin()));
    if (found == seen.end()) seen.push_back(kind);
  }
  return kinds;
}

std::vector<std::vector<int>> rank_orders(const PlanTask& task) {
  const PlanRequest& request = task.request;
  if (!request.order.empty()) return {request.order};
  std::vector<int> order(task.cluster.ranks.size());
  std::iota(order.begin(), order.end(), 0);
  if (names_ranks(request)) return {order};
  std::vector<RankKind> kinds;
  for (const int rank : order) kinds.push_back(kind_of(task, rank));
  std::vector<std::vector<int>> orders;
  for (const bool gpus_first : {true, false}) {
    std::vector<int> sorted = order;
    std::stable_sort(sorted.begin() + 1, sorted.end(), [&](int left, int right) {
      const RankKind& a = kinds[static_cast<size_t>(left)];
      const RankKind& b = kinds[static_cast<size_t>(right)];
      if (a.gpu != b.gpu) return a.gpu == gpus_first;
      if (a.host != b.host) return a.host < b.host;
      if (a.level != b.level) return a.level > b.level;
      return a.total_bytes > b.total_bytes;
    });
    if (orders.empty() || orders[0] != sorted) orders.push_back(std::move(sorted));
  }
  if (order.size() <= kAllOrders) add_other_orders(kinds, orders);
  return orders;
}

std::vector<Candidate> candidates(const PlanTask& task) {
  const PlanRequest& request = task.request;
  const std::vector<std::vector<int>> orders = rank_orders(task);
  if (!request.split.empty()) return {{request.split, false, orders[0]}};
  std::vector<Candidate> list;
  for (const std::vector<int>& order : orders) {
    for (auto& stages : free_stages(task, order)) {
      for (size_t s = 0; s < request.layers.size(); ++s) stages[s].n_layers = request.layers[s];
      list.push_back({std::move(stages), true, order});
    }
  }
  return list;
}

}  // namespace spillway

// See slopes.h.
#include "parallel/slopes.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/core/packed_matrix.h"
#include "parallel/cost.h"
#include "parallel/group_sum.h"
#include "parallel/ledger.h"
#include "parallel/rates.h"
#include "parallel/spill.h"
#include "parallel/stage_clock.h"

namespace spillway {
namespace {

// Of one rank's part of a layer.
struct LayerBytes {
  int64_t weights = 0;
  int64_t greater_half = 0;
  int64_t kv = 0;
};

LayerBytes layer_bytes(const Plan& plan, const ModelSpec& model, const RankPart& part) {
  const StagePlan& stage = plan.stages[static_cast<size_t>(part.stage)];
  const LayerSpec& layer = model.layers[static_cast<size_t>(stage.layers.begin)];
  const LayerPart& mine = part.layers[0];
  const int64_t attention = attention_weight_bytes(model, layer, mine);
  const int64_t feed_forward = feed_forward_weight_bytes(model, layer, mine);
  return {attention + feed_forward, std::max(attention, feed_forward),
          plan.rank_bytes(part.rank, "kv") / stage.layers.size()};
}

// Layers of so many bytes in what is left; all of them where they take nothing.
int64_t layers_in(int64_t room, int64_t bytes) {
  return bytes <= 0 ? INT32_MAX : std::max<int64_t>(0, room) / bytes;
}

Slopes slopes_of(const PlanTask& task, const Plan& plan, size_t s) {
  const StagePlan& stage = plan.stages[s];
  const bool gpu = plan.on_gpu(stage);
  const bool last = s + 1 == plan.stages.size();
  Slopes out;
  for (const int rank : stage.ranks) {
    const RankPart& part = plan.parts[static_cast<size_t>(rank)];
    const RankRates rates = rates_of(task.cluster.ranks[static_cast<size_t>(rank)], gpu);
    const LayerBytes bytes = layer_bytes(plan, task.model, part);
    const double resident = transfer_ms(bytes.weights, rates.read);
    out.resident_ms = std::max(out.resident_ms, resident);
    const double away = gpu ? rates.cpu_read + rates.bus : rates.disk;
    out.spilled_ms = std::max(out.spilled_ms, resident + transfer_ms(bytes.weights, away));
    // What is there whatever the layers: the vocabulary's matrices, activations, the program.
    const char* place = gpu ? "gpu" : "host";
    RankPart no_layers = part;
    no_layers.layers.clear();
    const int64_t fixed = plan.rank_bytes(rank, "", place) -
                          plan.rank_bytes(rank, "weights", place) -
                          plan.rank_bytes(rank, "kv", place) +
                          weight_bytes(task.model, no_layers, stage.layers, s == 0, last);
    const int64_t room = budget_bytes(plan, rank, place) - fixed;
    out.resident = std::min(out.resident, layers_in(room, bytes.weights + bytes.kv));
    // Two slots, and the cache, which is never spilled.
    const int64_t spilled = layers_in(room - kStreamSlots * bytes.greater_half, bytes.kv);
    const int64_t host = gpu ? layers_in(budget_bytes(plan, rank, "host"), bytes.weights) : 0;
    out.most = std::min(out.most, std::min(spilled, out.resident + host));
  }
  const double sums = 2 * group_sum_ms(task.cluster, stage.ranks, gpu, 1, task.model.dim) +
                      layer_launch_ms(gpu, stage.ranks.size());
  out.resident_ms += sums;
  out.spilled_ms += sums;
  return out;
}

}  // namespace

std::vector<Slopes> all_slopes(const PlanTask& task, const Plan& plan) {
  std::vector<Slopes> out;
  for (size_t s = 0; s < plan.stages.size(); ++s) out.push_back(slopes_of(task, plan, s));
  return out;
}

std::vector<int64_t> by_slopes(const std::vector<Slopes>& slopes, int64_t n, bool slowest) {
  std::vector<int64_t> layers(slopes.size(), 1);
  std::vector<double> done;
  for (const Slopes& one : slopes) done.push_back(one.ms(0));
  for (auto left = n - static_cast<int64_t>(slopes.size()); left > 0; --left) {
    const auto cost = [&](size_t s) { return slopes[s].ms(layers[s]) + (slowest ? done[s] : 0); };
    size_t best = 0;
    for (size_t s = 1; s < slopes.size(); ++s) {
      if (cost(s) < cost(best)) best = s;
    }
    done[best] += slopes[best].ms(layers[best]);
    ++layers[best];
  }
  return layers;
}

namespace {

using Stages = std::vector<std::vector<int>>;  // ranks

// Guess of a hop, for the comparison alone.
constexpr double kHopMs = 0.05;

// Stages that are not laid out, by what their ranks' devices read and hold.
class Estimate {
 public:
  Estimate(const PlanTask& task, const std::vector<Found>& found) : task_(task) {
    const ModelSpec& model = task.model;
    LayerPart whole;
    whole.heads = {0, model.n_heads};
    whole.kv_heads = {0, model.n_kv_heads};
    whole.ff = {0, model.ff_dim};
    const LayerSpec& layer = model.layers[0];
    const auto attention = static_cast<double>(attention_weight_bytes(model, layer, whole));
    const auto ff = static_cast<double>(feed_forward_weight_bytes(model, layer, whole));
    weights_ = attention + ff;
    greater_half_ = std::max(attention, ff);
    const MatrixSpec& head = head_matrix(model);
    head_ = static_cast<double>(packed_bytes(head.type, head.rows, head.cols));
    const Plan& first = found[0].plan;
    const int64_t tokens = first.kv.n_pages * first.kv.page_tokens;
    kv_ = static_cast<double>(2 * tokens * model.n_kv_heads *
                              kv_row_bytes(first.kv.type, model.head_dim));
    for (const bool gpu : {false, true}) {
      fixed_[gpu].assign(task.cluster.ranks.size(), -1);
      for (const Found& one : found) take_fixed(one.plan, gpu);
      // Where no plan has the rank so: as much as others take.
      const int64_t most = *std::max_element(fixed_[gpu].begin(), fixed_[gpu].end());
      for (const RankSpec& rank : task.cluster.ranks) {
        const bool may =
            !gpu || (rank.gpu.present() && task.request.device_of(rank.rank) != DeviceChoice::kCpu);
        int64_t& mine = fixed_[gpu][static_cast<size_t>(rank.rank)];
        if (may && mine < 0) mine = most;
      }
    }
  }

  double score(const Stages& stages) const {
    std::vector<Slopes> slopes;
    const auto each =
        std::max<int64_t>(1, task_.model.n_layers / static_cast<int64_t>(stages.size()));
    for (size_t s = 0; s < stages.size(); ++s) {
      slopes.push_back(best_slopes(stages[s], s + 1 == stages.size(), each));
    }
    const bool turns = task_.request.objective == Objective::kThroughput;
    const std::vector<int64_t> layers = by_slopes(slopes, task_.model.n_layers, turns);
    double sum = kHopMs * static_cast<double>(stages.size());
    double slowest = 0;
    for (size_t s = 0; s < stages.size(); ++s) {
      const double ms = total(slopes[s], layers[s]);
      sum += ms;
      slowest = std::max(slowest, ms);
    }
    const int64_t groups =
        std::min(task_.request.limits.max_sequences, static_cast<int64_t>(stages.size()));
    return turns ? std::max(slowest, sum / static_cast<double>(groups)) : sum;
  }

 private:
  void take_fixed(const Plan& plan, bool gpu) {
    const char* place = gpu ? "gpu" : "host";
    for (const RankPart& part : plan.parts) {
      int64_t& mine = fixed_[gpu][static_cast<size_t>(part.rank)];
      if (part.gpu != gpu || mine >= 0) continue;
      mine = plan.rank_bytes(part.rank, "", place) - plan.rank_bytes(part.rank, "weights", place) -
             plan.rank_bytes(part.rank, "kv", place);
    }
  }

  static double total(const Slopes& slopes, int64_t layers) {
    double ms = slopes.head_ms;
    for (int64_t l = 0; l < layers; ++l) ms += slopes.ms(l);
    return ms;
  }

  // On GPUs where all have one, else on CPUs, with shares by speed or by memory.
  Slopes best_slopes(const std::vector<int>& ranks, bool last, int64_t layers) const {
    std::vector<Slopes> tries;
    for (const bool gpu : {true, false}) {
      const auto known = [&](int rank) { return fixed_[gpu][static_cast<size_t>(rank)] >= 0; };
      if (!std::all_of(ranks.begin(), ranks.end(), known)) continue;
      for (const bool memory : {false, true}) tries.push_back(slopes(ranks, last, gpu, memory));
    }
    if (tries.empty()) return {1e6, 1e6, 0, 0, 0};
    return *std::min_element(tries.begin(), tries.end(), [&](const Slopes& a, const Slopes& b) {
      return total(a, layers) < total(b, layers);
    });
  }

  Slopes slopes(const std::vector<int>& ranks, bool last, bool gpu, bool by_memory) const {
    const auto room_of = [&](int rank) {
      const RankBudget& budget = task_.budgets[static_cast<size_t>(rank)];
      return static_cast<double>((gpu ? budget.gpu_bytes : budget.host_bytes) -
                                 fixed_[gpu][static_cast<size_t>(rank)]);
    };
    const auto rates = [&](int rank) {
      return rates_of(task_.cluster.ranks[static_cast<size_t>(rank)], gpu);
    };
    double all = 0;
    for (const int rank : ranks) all += by_memory ? std::max(room_of(rank), 1.0) : rates(rank).read;
    Slopes out;
    for (const int rank : ranks) {
      const RankRates mine = rates(rank);
      const double share = (by_memory ? std::max(room_of(rank), 1.0) : mine.read) / all;
      const auto weights = static_cast<int64_t>(share * weights_);
      const auto half = static_cast<int64_t>(share * greater_half_);
      const auto kv = static_cast<int64_t>(share * kv_);
      const auto head = static_cast<int64_t>(share * head_);
      const auto room = static_cast<int64_t>(room_of(rank));
      if (last) out.head_ms = std::max(out.head_ms, transfer_ms(head, mine.read));
      const double resident = transfer_ms(weights, mine.read);
      const double away = gpu ? mine.cpu_read + mine.bus : mine.disk;
      out.resident_ms = std::max(out.resident_ms, resident);
      out.spilled_ms = std::max(out.spilled_ms, resident + transfer_ms(weights, away));
      out.resident = std::min(out.resident, layers_in(room, weights + kv));
      const int64_t host =
          gpu ? layers_in(task_.budgets[static_cast<size_t>(rank)].host_bytes, weights) : 0;
      out.most =
          std::min({out.most, layers_in(room - kStreamSlots * half, kv), out.resident + host});
    }
    const double sums = 2 * group_sum_ms(task_.cluster, ranks, gpu, 1, task_.model.dim) +
                        layer_launch_ms(gpu, ranks.size());
    out.resident_ms += sums;
    out.spilled_ms += sums;
    return out;
  }

  const PlanTask& task_;
  double weights_ = 0;  // of a layer
  double greater_half_ = 0;
  double kv_ = 0;
  double head_ = 0;
  std::vector<int64_t> fixed_[2];  // by rank on its CPU and on its GPU; -1: not known
};

// Calls `take` with every way to put the ranks in stages in a row, rank 0 in the first; of ranks of
// a kind always the first ones first.
template <typename Take>
void each_stages(const std::vector<int>& kinds, int64_t most_stages, const Take& take) {
  const auto n = kinds.size();
  std::vector<size_t> stage(n, 0);
  const auto place = [&](auto&& self, size_t rank) -> void {
    if (rank == n) {
      const size_t count = *std::max_element(stage.begin(), stage.end()) + 1;
      Stages stages(count);
      for (size_t r = 0; r < n; ++r) stages[stage[r]].push_back(static_cast<int>(r));
      if (static_cast<int64_t>(count) > most_stages) return;
      if (std::any_of(stages.begin(), stages.end(), [](auto& one) { return one.empty(); })) return;
      take(stages);
      return;
    }
    size_t least = 0;
    for (size_t other = 1; other < rank; ++other) {
      if (kinds[other] == kinds[rank]) least = stage[other];
    }
    for (stage[rank] = least; stage[rank] < n; ++stage[rank]) self(self, rank + 1);
    stage[rank] = 0;
  };
  place(place, 1);
}

}  // namespace

std::vector<Candidate> best_by_slopes(const PlanTask& task, const std::vector<Found>& found,
                                      const std::vector<int>& kinds, size_t most) {
  const Estimate estimate(task, found);
  std::vector<std::pair<double, Stages>> all;
  each_stages(kinds, task.model.n_layers,
              [&](const Stages& stages) { all.emplace_back(estimate.score(stages), stages); });
  std::stable_sort(all.begin(), all.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  if (all.size() > most) all.resize(most);
  std::vector<Candidate> out;
  for (const auto& [score, stages] : all) {
    Candidate one;
    for (const std::vector<int>& ranks : stages) {
      one.stages.push_back({0, std::vector<double>(ranks.size(), 1.0)});
      one.order.insert(one.order.end(), ranks.begin(), ranks.end());
    }
    out.push_back(std::move(one));
  }
  return out;
}

}  // namespace spillway

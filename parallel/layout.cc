// See layout.h.
#include "parallel/layout.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "kernels/core/check.h"
#include "kernels/core/packed_matrix.h"
#include "parallel/cost.h"
#include "parallel/ledger.h"
#include "parallel/plan_request_check.h"
#include "parallel/shard.h"
#include "parallel/spill.h"
#include "parallel/spill_search.h"

namespace spillway {
namespace {

// The vocabulary is cut on the packed matrices' row groups.
constexpr int64_t kVocabularyUnit = 16;
// Rates of one kind of device, or 1 for all where they hardly differ; all the mean of them where
// there are other kinds beside.
void level_speeds(std::vector<double>& speeds, const std::vector<size_t>& ranks) {
  if (ranks.empty()) return;
  double least = speeds[ranks[0]];
  double most = least;
  double sum = 0;
  for (const size_t rank : ranks) {
    least = std::min(least, speeds[rank]);
    most = std::max(most, speeds[rank]);
    sum += speeds[rank];
  }
  if (most > least * kSameSpeed) return;
  for (const size_t rank : ranks) {
    speeds[rank] = ranks.size() == speeds.size() ? 1.0 : sum / static_cast<double>(ranks.size());
  }
}

// What the last stage's head reads for a token, in layers of the model's mean size.
double head_in_layers(const ModelSpec& model) {
  int64_t layer_bytes = 0;
  for (const LayerSpec& layer : model.layers) {
    for (const MatrixSpec& m :
         {layer.q, layer.k, layer.v, layer.o, layer.gate, layer.up, layer.down}) {
      layer_bytes += packed_bytes(m.type, m.rows, m.cols);
    }
  }
  const MatrixSpec& head = head_matrix(model);
  return static_cast<double>(packed_bytes(head.type, model.vocab_size, model.dim)) *
         static_cast<double>(model.n_layers) / static_cast<double>(layer_bytes);
}

// Layers of the stages that pin none: in proportion to their weights, the last stage's head counted
// as so many layers more, at least one each and at most `most`. What the rounding leaves goes to
// the first stages.
void share_out_layers(std::vector<int64_t>& layers, const std::vector<double>& weights,
                      const std::vector<int64_t>& most, int64_t n, double head_layers) {
  std::vector<size_t> open;
  double total = 0;
  for (size_t s = 0; s < layers.size(); ++s) {
    if (layers[s] > 0) {
      n -= layers[s];
    } else {
      open.push_back(s);
      total += weights[s];
    }
  }
  if (open.empty()) return;
  CHECK_GE(n, static_cast<int64_t>(open.size()));
  const size_t last = layers.size() - 1;
  if (open.back() != last) head_layers = 0;
  const auto ideal = [&](size_t s) {
    const double all = weights[s] / total * (static_cast<double>(n) + head_layers);
    return s == last ? all - head_layers : all;
  };
  const auto gap = [&](size_t s) { return ideal(s) - static_cast<double>(layers[s]); };
  int64_t left = n;
  for (const size_t s : open) {
    layers[s] = std::clamp<int64_t>(static_cast<int64_t>(ideal(s) + 1e-9), 1, most[s]);
    left -= layers[s];
  }
  for (; left > 0; --left) {
    size_t best = layers.size();
    for (const size_t s : open) {
      if (layers[s] >= most[s]) continue;
      if (best == layers.size() || gap(s) > gap(best) + 1e-9) best = s;
    }
    CHECK_LT(best, layers.size());
    ++layers[best];
  }
  for (; left < 0; ++left) {
    size_t best = layers.size();
    for (const size_t s : open) {
      if (layers[s] < 2) continue;
      if (best == layers.size() || gap(s) <= gap(best) + 1e-9) best = s;
    }
    CHECK_LT(best, layers.size());
    --layers[best];
  }
}

// The same bits for the shares of a plan that was written down and read again: those that add up to
// 1 but for rounding stay as they are, equal ones are written as 1:1.
void set_sum_to_one(std::vector<double>& shares, double sum) {
  const auto n = static_cast<double>(shares.size());
  const bool even = std::equal(shares.begin() + 1, shares.end(), shares.begin());
  if (!even && std::fabs(sum - 1) < 1e-9) return;
  for (double& share : shares) share = even ? 1 / n : share / sum;
}

std::vector<StagePlan> place_stages(const Candidate& candidate, const Choices& choices,
                                    const ModelSpec& model) {
  std::vector<StagePlan> stages;
  std::vector<int64_t> layers;
  std::vector<double> weights;
  size_t at_rank = 0;
  for (const StagePin& pin : candidate.stages) {
    StagePlan stage;
    for (size_t i = 0; i < pin.shares.size(); ++i, ++at_rank) {
      const int rank = candidate.order[at_rank];
      stage.ranks.push_back(rank);
      stage.shares.push_back(candidate.free_shares ? choices.speeds[static_cast<size_t>(rank)]
                                                   : pin.shares[i]);
    }
    const double sum = std::accumulate(stage.shares.begin(), stage.shares.end(), 0.0);
    weights.push_back(sum);
    set_sum_to_one(stage.shares, sum);
    layers.push_back(pin.n_layers);
    stages.push_back(std::move(stage));
  }
  // A split or shares that the user wrote are taken by their word. On CPUs layers alone count:
  // where one sequence decodes one stage works at a time, and prefill, which reads the head once a
  // prompt, is what a pipeline brings.
  const bool count_head = candidate.free_shares && choices.free_speeds && choices.on_gpu.back();
  share_out_layers(layers, weights, choices.most_layers, model.n_layers,
                   count_head ? head_in_layers(model) : 0);
  int64_t at = 0;
  for (size_t s = 0; s < stages.size(); ++s) {
    stages[s].layers = {at, at + layers[s]};
    at += layers[s];
  }
  CHECK_EQ(at, model.n_layers);
  return stages;
}

std::vector<Range> vocabulary_rows(const StagePlan& stage, int64_t vocab_size) {
  std::vector<double> carry(stage.shares.size(), 0.0);
  return split_units(vocab_size, kVocabularyUnit, stage.shares, carry);
}

RankPart part_of(const StagePlan& stage, size_t s, size_t i, bool last, const Range& rows) {
  RankPart part;
  part.rank = stage.ranks[i];
  part.stage = static_cast<int>(s);
  part.tp_index = static_cast<int>(i);
  if (s == 0) part.embedding_rows = rows;
  if (last) part.output_rows = rows;
  return part;
}

void place_parts(Plan& plan, const ModelSpec& model, const std::vector<bool>& on_gpu) {
  size_t n_ranks = 0;
  for (const StagePlan& stage : plan.stages) n_ranks += stage.ranks.size();
  plan.parts.resize(n_ranks);
  for (size_t s = 0; s < plan.stages.size(); ++s) {
    StagePlan& stage = plan.stages[s];
    auto shards = shard_layers(model, stage.layers, stage.shares);
    const std::vector<Range> rows = vocabulary_rows(stage, model.vocab_size);
    std::vector<int64_t> bytes(stage.ranks.size(), 0);
    int64_t total = 0;
    for (size_t i = 0; i < stage.ranks.size(); ++i) {
      RankPart part = part_of(stage, s, i, s + 1 == plan.stages.size(), rows[i]);
      part.layers = std::move(shards[i]);
      part.gpu = on_gpu[s];
      for (int64_t l = 0; l < stage.layers.size(); ++l) {
        const LayerSpec& layer = model.layers[stage.layers.begin + l];
        bytes[i] += attention_weight_bytes(model, layer, part.layers[l]) +
                    feed_forward_weight_bytes(model, layer, part.layers[l]);
      }
      total += bytes[i];
      plan.parts[static_cast<size_t>(part.rank)] = std::move(part);
    }
    for (const int64_t b : bytes) {
      stage.achieved.push_back(static_cast<double>(b) / static_cast<double>(total));
    }
  }
}

}  // namespace

std::vector<size_t> stages_of(const Candidate& candidate) {
  std::vector<size_t> stages(candidate.order.size());
  size_t at = 0;
  for (size_t s = 0; s < candidate.stages.size(); ++s) {
    for (size_t i = 0; i < candidate.stages[s].shares.size(); ++i, ++at) {
      stages[static_cast<size_t>(candidate.order[at])] = s;
    }
  }
  return stages;
}

std::vector<double> rank_speeds(const Candidate& candidate, const std::vector<bool>& on_gpu,
                                const PlanTask& task) {
  if (!task.request.shares.empty()) return task.request.shares;
  std::vector<double> speeds;
  std::vector<size_t> gpus;
  std::vector<size_t> cpus;
  const std::vector<size_t> stages = stages_of(candidate);
  for (size_t r = 0; r < stages.size(); ++r) {
    const RankSpec& rank = task.cluster.ranks[r];
    const bool gpu = on_gpu[stages[r]];
    const double speed = gpu ? rank.gpu.read_gb_per_s : rank.measured ? rank.read_gb_per_s : 0;
    if (speed <= 0) return std::vector<double>(stages.size(), 1.0);
    speeds.push_back(speed);
    (gpu ? gpus : cpus).push_back(r);
  }
  level_speeds(speeds, gpus);
  level_speeds(speeds, cpus);
  return speeds;
}

Plan lay_out_with(const Candidate& candidate, const Choices& choices, const PlanTask& task) {
  const ModelSpec& model = task.model;
  const PlanRequest& request = task.request;
  Plan plan;
  plan.model_name = model.name;
  plan.header_hash = model.header_hash;
  plan.limits = request.limits;
  plan.kv.type = request.kv_type;
  plan.kv.context = planned_context(model, request);
  plan.kv.n_pages = div_up(plan.kv.context, plan.kv.page_tokens) + request.limits.max_sequences;
  plan.budgets = task.budgets;
  plan.stages = place_stages(candidate, choices, model);
  place_parts(plan, model, choices.on_gpu);
  place_weights(plan, model, request.places);
  place_weights(plan, model, choices.spills);
  // All stages see the same steps.
  if (plan.uses_gpu() && request.gpu_rows > 0) plan.limits.max_rows = request.gpu_rows;
  if (request.choose_cpu_rows) choose_cpu_rows(plan, model, task.cluster);
  write_ledger(plan, model, task.cluster, LedgerLines::kSums);
  return plan;
}

}  // namespace spillway

// See layout.h.
#include "parallel/layout.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "kernels/core/check.h"
#include "kernels/core/packed_matrix.h"
#include "parallel/cost.h"
#include "parallel/gpu_ledger.h"
#include "parallel/ledger.h"
#include "parallel/plan_request_check.h"
#include "parallel/shard.h"
#include "parallel/shortage.h"
#include "parallel/spill.h"

namespace spillway {
namespace {

// Measured rates nearer than this are one speed: probes on a busy host scatter by as much, and the
// same hosts should get the same plan tomorrow.
constexpr double kSameSpeed = 1.2;
// The vocabulary is cut on the packed matrices' row groups.
constexpr int64_t kVocabularyUnit = 16;
// Times that layers or shares are moved to where there is memory: each names one stage at least
// that is too full, and estimates miss by a layer.
constexpr int kMoves = 16;

// What a candidate leaves open: each stage's device and its most layers, each rank's weight.
struct Choices {
  std::vector<bool> on_gpu;          // by stage
  std::vector<double> speeds;        // by rank
  std::vector<int64_t> most_layers;  // by stage; where the candidate pins none
};

// Stage of each rank.
std::vector<size_t> stages_of(const Candidate& candidate) {
  std::vector<size_t> stages;
  for (size_t s = 0; s < candidate.stages.size(); ++s) {
    stages.insert(stages.end(), candidate.stages[s].shares.size(), s);
  }
  return stages;
}

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

// Relative speed of each rank where it computes: its measured read rate; 1 for all where they
// hardly differ or were not all measured.
std::vector<double> rank_speeds(const Candidate& candidate, const std::vector<bool>& on_gpu,
                                const ClusterSpec& cluster) {
  std::vector<double> speeds;
  std::vector<size_t> gpus;
  std::vector<size_t> cpus;
  const std::vector<size_t> stages = stages_of(candidate);
  for (size_t r = 0; r < stages.size(); ++r) {
    const RankSpec& rank = cluster.ranks[r];
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

std::vector<StagePlan> place_stages(const Candidate& candidate, const Choices& choices,
                                    const ModelSpec& model) {
  std::vector<StagePlan> stages;
  std::vector<int64_t> layers;
  std::vector<double> weights;
  int rank = 0;
  for (const StagePin& pin : candidate.stages) {
    StagePlan stage;
    for (size_t i = 0; i < pin.shares.size(); ++i, ++rank) {
      stage.ranks.push_back(rank);
      stage.shares.push_back(candidate.free_shares ? choices.speeds[static_cast<size_t>(rank)]
                                                   : pin.shares[i]);
    }
    const double sum = std::accumulate(stage.shares.begin(), stage.shares.end(), 0.0);
    weights.push_back(sum);
    for (double& share : stage.shares) share /= sum;
    layers.push_back(pin.n_layers);
    stages.push_back(std::move(stage));
  }
  // A split that the user wrote is taken by its word. On CPUs layers alone count: where one
  // sequence decodes one stage works at a time, and prefill, which reads the head once a prompt, is
  // what a pipeline brings.
  const bool count_head = candidate.free_shares && choices.on_gpu.back();
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

void place_parts(Plan& plan, const ModelSpec& model, const std::vector<bool>& on_gpu) {
  for (size_t s = 0; s < plan.stages.size(); ++s) {
    StagePlan& stage = plan.stages[s];
    const auto shards = shard_layers(model, stage.layers, stage.shares);
    const std::vector<Range> rows = vocabulary_rows(stage, model.vocab_size);
    std::vector<int64_t> bytes(stage.ranks.size(), 0);
    int64_t total = 0;
    for (size_t i = 0; i < stage.ranks.size(); ++i) {
      RankPart part;
      part.rank = stage.ranks[i];
      part.stage = static_cast<int>(s);
      part.tp_index = static_cast<int>(i);
      part.layers = shards[i];
      part.gpu = on_gpu[s];
      if (s == 0) part.embedding_rows = rows[i];
      if (s + 1 == plan.stages.size()) part.output_rows = rows[i];
      for (int64_t l = 0; l < stage.layers.size(); ++l) {
        const LayerSpec& layer = model.layers[stage.layers.begin + l];
        bytes[i] += attention_weight_bytes(model, layer, part.layers[l]) +
                    feed_forward_weight_bytes(model, layer, part.layers[l]);
      }
      total += bytes[i];
      plan.parts.push_back(std::move(part));
    }
    for (const int64_t b : bytes) {
      stage.achieved.push_back(static_cast<double>(b) / static_cast<double>(total));
    }
  }
}

// All of a plan but its prediction.
Plan lay_out_with(const Candidate& candidate, const Choices& choices, const ModelSpec& model,
                  const ClusterSpec& cluster, const PlanRequest& request) {
  Plan plan;
  plan.model_name = model.name;
  plan.header_hash = model.header_hash;
  plan.limits = request.limits;
  plan.kv.type = request.kv_type;
  plan.kv.context = planned_context(model, request);
  plan.kv.n_pages = div_up(plan.kv.context, plan.kv.page_tokens) + request.limits.max_sequences;
  plan.stages = place_stages(candidate, choices, model);
  place_parts(plan, model, choices.on_gpu);
  place_weights(plan, model, request.places);
  // All stages see the same steps.
  if (plan.uses_gpu() && request.gpu_rows > 0) plan.limits.max_rows = request.gpu_rows;
  write_ledger(plan, model, cluster);
  return plan;
}

// What the worst rank of a stage lacks where its weights lie.
Shortage stage_shortage(const Plan& plan, const ClusterSpec& cluster, const StagePlan& stage) {
  Shortage worst = {stage.ranks[0], "", INT64_MIN};
  for (const int rank : stage.ranks) {
    const char* place = place_of(plan.parts[static_cast<size_t>(rank)]);
    const int64_t lack = lack_bytes(plan, cluster, rank, place);
    if (lack > worst.bytes) worst = {rank, place, lack};
  }
  return worst;
}

// Shares of a stage's ranks by their free memory; the stage's speed remains.
bool share_by_memory(Choices& choices, const ClusterSpec& cluster, const StagePlan& stage,
                     bool gpu) {
  double speed = 0;
  double memory = 0;
  std::vector<double> wanted;
  for (const int rank : stage.ranks) {
    const RankSpec& spec = cluster.ranks[static_cast<size_t>(rank)];
    wanted.push_back(static_cast<double>(gpu ? spec.gpu.free_bytes : spec.memory_free_bytes));
    if (wanted.back() <= 0) return false;
    memory += wanted.back();
    speed += choices.speeds[static_cast<size_t>(rank)];
  }
  bool changed = false;
  for (size_t i = 0; i < wanted.size(); ++i) {
    double& mine = choices.speeds[static_cast<size_t>(stage.ranks[i])];
    const double now = speed * wanted[i] / memory;
    changed = changed || now > mine * 1.001 || mine > now * 1.001;
    mine = now;
  }
  return changed;
}

// Moves shares, then layers, away from stages that lack memory. False: nothing is left to move.
bool make_room(Choices& choices, const Plan& plan, const ClusterSpec& cluster) {
  bool moved = false;
  for (size_t s = 0; s < plan.stages.size(); ++s) {
    const StagePlan& stage = plan.stages[s];
    const Shortage lack = stage_shortage(plan, cluster, stage);
    if (lack.bytes <= 0) continue;
    if (stage.ranks.size() > 1 && share_by_memory(choices, cluster, stage, plan.on_gpu(stage))) {
      moved = true;
      continue;
    }
    const int64_t layer_bytes = std::max<int64_t>(
        1, (plan.rank_bytes(lack.rank, "weights") + plan.rank_bytes(lack.rank, "kv")) /
               stage.layers.size());
    const int64_t fewer =
        std::max<int64_t>(1, stage.layers.size() - div_up(lack.bytes, layer_bytes));
    moved = moved || fewer < stage.layers.size();
    choices.most_layers[s] = fewer;
  }
  int64_t room = 0;
  for (const int64_t most : choices.most_layers) room += most;
  return moved && room >= plan.stages.back().layers.end;
}

// By speed; where the candidate is free and that lacks memory of a plan with GPUs, by memory if
// that is enough. (Jobs of CPUs alone say what is missing: their memory is one pool a host.)
Plan lay_out_where_it_fits(const Candidate& candidate, const std::vector<bool>& on_gpu,
                           const ModelSpec& model, const ClusterSpec& cluster,
                           const PlanRequest& request) {
  Choices choices;
  choices.on_gpu = on_gpu;
  choices.speeds = rank_speeds(candidate, on_gpu, cluster);
  choices.most_layers.assign(candidate.stages.size(), model.n_layers);
  Plan first = lay_out_with(candidate, choices, model, cluster, request);
  const bool free = candidate.free_shares && first.uses_gpu();
  if (!free || shortage(first, cluster).bytes <= 0) return first;
  Plan plan = first;
  for (int i = 0; i < kMoves && make_room(choices, plan, cluster); ++i) {
    plan = lay_out_with(candidate, choices, model, cluster, request);
    if (shortage(plan, cluster).bytes <= 0) return plan;
  }
  return first;
}

// Of the stages on GPUs that the request does not insist on, the one that lacks most of their
// memory; n_stages: none lacks any.
size_t overfull_stage(const Plan& plan, const ClusterSpec& cluster,
                      const std::vector<bool>& forced) {
  size_t worst = plan.stages.size();
  int64_t most = 0;
  for (size_t s = 0; s < plan.stages.size(); ++s) {
    if (forced[s] || !plan.on_gpu(plan.stages[s])) continue;
    const int64_t lack = stage_shortage(plan, cluster, plan.stages[s]).bytes;
    if (lack <= most) continue;
    most = lack;
    worst = s;
  }
  return worst;
}

}  // namespace

std::optional<Plan> lay_out(const Candidate& candidate, const ModelSpec& model,
                            const ClusterSpec& cluster, const PlanRequest& request) {
  const size_t n_stages = candidate.stages.size();
  std::vector<bool> on_gpu(n_stages, gpu_obstacle(model).empty());
  std::vector<bool> forced(n_stages, false);
  const std::vector<size_t> stages = stages_of(candidate);
  for (size_t r = 0; r < stages.size(); ++r) {
    const DeviceChoice device = request.device_of(static_cast<int>(r));
    if (device == DeviceChoice::kGpu) forced[stages[r]] = true;
    if (device == DeviceChoice::kCpu || !cluster.ranks[r].gpu.present()) on_gpu[stages[r]] = false;
  }
  for (size_t s = 0; s < n_stages; ++s) {
    if (forced[s] && !on_gpu[s]) return {};
  }
  while (true) {
    Plan plan = lay_out_where_it_fits(candidate, on_gpu, model, cluster, request);
    const size_t overfull = overfull_stage(plan, cluster, forced);
    if (overfull == n_stages) {
      plan.prediction = predict(plan, model, cluster, predicted_context(plan));
      return plan;
    }
    on_gpu[overfull] = false;
  }
}

}  // namespace spillway

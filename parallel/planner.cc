// See planner.h. A plan is made in three steps: candidates (which ranks form which stages),
// layout (layers, shares, parts, ledger, prediction of one candidate), and the choice. Called by
// the coordinator, by `plan` and `verify`; never looks at the machine it runs on.
#include "parallel/planner.h"

#include <algorithm>
#include <numeric>

#include "kernels/core/error.h"
#include "parallel/cost.h"
#include "parallel/gpu_ledger.h"
#include "parallel/ledger.h"
#include "parallel/plan_request_check.h"
#include "parallel/shard.h"
#include "parallel/size_text.h"

namespace spillway {
namespace {

// Up to here every composition of the ranks into stages is tried (2^(n-1) of them), beyond only
// equal stages.
constexpr int kAllCompositions = 6;
// Measured rates nearer than this are one speed: probes on a busy host scatter by as much, and the
// same hosts should get the same plan tomorrow.
constexpr double kSameSpeed = 1.2;
// A later candidate must be predicted this much faster; earlier ones have fewer stages.
constexpr double kWorthIt = 1.02;
// The vocabulary is cut on the packed matrices' row groups.
constexpr int64_t kVocabularyUnit = 16;

// Stages by their ranks; shares are the user's or, with free_shares, follow the ranks' speed.
struct Candidate {
  std::vector<StagePin> stages;
  bool free_shares = true;
};

// Relative speed of each rank: its measured read rate, or 1 for all where they hardly differ.
std::vector<double> rank_speeds(const ClusterSpec& cluster) {
  std::vector<double> speeds(cluster.ranks.size(), 1.0);
  double least = 0;
  double most = 0;
  for (const RankSpec& rank : cluster.ranks) {
    if (!rank.measured || rank.read_gb_per_s <= 0) return speeds;
    least = least == 0 ? rank.read_gb_per_s : std::min(least, rank.read_gb_per_s);
    most = std::max(most, rank.read_gb_per_s);
  }
  if (most <= least * kSameSpeed) return speeds;
  for (size_t i = 0; i < speeds.size(); ++i) speeds[i] = cluster.ranks[i].read_gb_per_s;
  return speeds;
}

// Layers of the stages that pin none: in proportion to their weights, at least one each; what the
// rounding leaves goes to the first stages, since the last one also has the head.
void share_out_layers(std::vector<int64_t>& layers, const std::vector<double>& weights, int64_t n) {
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
  const auto gap = [&](size_t s, int64_t all) {
    return weights[s] / total * static_cast<double>(all) - static_cast<double>(layers[s]);
  };
  int64_t left = n;
  for (const size_t s : open) {
    const double ideal = weights[s] / total * static_cast<double>(n);
    layers[s] = std::max<int64_t>(1, static_cast<int64_t>(ideal + 1e-9));
    left -= layers[s];
  }
  for (; left > 0; --left) {
    size_t best = open[0];
    for (const size_t s : open) best = gap(s, n) > gap(best, n) + 1e-9 ? s : best;
    ++layers[best];
  }
  for (; left < 0; ++left) {
    size_t best = layers.size();
    for (const size_t s : open) {
      if (layers[s] < 2) continue;
      if (best == layers.size() || gap(s, n) <= gap(best, n) + 1e-9) best = s;
    }
    CHECK_LT(best, layers.size());
    --layers[best];
  }
}

std::vector<StagePlan> place_stages(const Candidate& candidate, const ModelSpec& model,
                                    const ClusterSpec& cluster) {
  const std::vector<double> speeds = rank_speeds(cluster);
  std::vector<StagePlan> stages;
  std::vector<int64_t> layers;
  std::vector<double> weights;
  int rank = 0;
  for (const StagePin& pin : candidate.stages) {
    StagePlan stage;
    for (size_t i = 0; i < pin.shares.size(); ++i, ++rank) {
      stage.ranks.push_back(rank);
      stage.shares.push_back(candidate.free_shares ? speeds[rank] : pin.shares[i]);
    }
    const double sum = std::accumulate(stage.shares.begin(), stage.shares.end(), 0.0);
    weights.push_back(sum);
    for (double& share : stage.shares) share /= sum;
    layers.push_back(pin.n_layers);
    stages.push_back(std::move(stage));
  }
  share_out_layers(layers, weights, model.n_layers);
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

void place_parts(Plan& plan, const ModelSpec& model, bool gpu) {
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
      part.gpu = gpu;
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

Plan lay_out_on(bool gpu, const Candidate& candidate, const ModelSpec& model,
                const ClusterSpec& cluster, const PlanRequest& request) {
  Plan plan;
  plan.model_name = model.name;
  plan.header_hash = model.header_hash;
  plan.limits = request.limits;
  if (gpu && request.gpu_rows > 0) plan.limits.max_rows = request.gpu_rows;
  plan.kv.type = request.kv_type;
  plan.kv.context = planned_context(model, request);
  plan.kv.n_pages = div_up(plan.kv.context, plan.kv.page_tokens) + request.limits.max_sequences;
  plan.stages = place_stages(candidate, model, cluster);
  place_parts(plan, model, gpu);
  write_ledger(plan, model, cluster);
  plan.prediction = predict(plan, model, cluster, predicted_context(plan));
  return plan;
}

// A memory that a plan fills, and what it lacks there; 0 or less: the part fits.
struct Shortage {
  int rank = 0;
  const char* place = "host";
  int64_t bytes = 0;
};

int64_t free_bytes(const RankSpec& spec, const std::string& place) {
  return place == "gpu" ? spec.gpu.free_bytes : spec.memory_free_bytes;
}

// Of the rank and memory that lack most.
Shortage shortage(const Plan& plan, const ClusterSpec& cluster) {
  Shortage worst = {0, "host", INT64_MIN};
  for (const RankPart& part : plan.parts) {
    for (const char* place : {"gpu", "host"}) {
      if (!part.gpu && std::string(place) == "gpu") continue;
      const int64_t lack = plan.rank_bytes(part.rank, "", place) -
                           free_bytes(cluster.ranks[static_cast<size_t>(part.rank)], place);
      if (lack > worst.bytes) worst = {part.rank, place, lack};
    }
  }
  return worst;
}

// On the GPU when that is asked for, or when it can be and the GPU holds it; else on the CPU.
Plan lay_out(const Candidate& candidate, const ModelSpec& model, const ClusterSpec& cluster,
             const PlanRequest& request) {
  const bool forced = request.device == DeviceChoice::kGpu;
  const bool possible = request.device != DeviceChoice::kCpu && cluster.size() == 1 &&
                        cluster.ranks[0].gpu.present() && gpu_obstacle(model).empty();
  if (forced || possible) {
    Plan plan = lay_out_on(true, candidate, model, cluster, request);
    if (forced || shortage(plan, cluster).bytes <= 0) return plan;
  }
  return lay_out_on(false, candidate, model, cluster, request);
}

// The longest context with which every rank holds its part; 0 when there is none.
int64_t longest_context(const Plan& plan, const ModelSpec& model, const ClusterSpec& cluster) {
  const auto fits = [&](int64_t context) {
    KvPlan kv = plan.kv;
    kv.n_pages = div_up(context, kv.page_tokens) + plan.limits.max_sequences;
    for (int r = 0; r < plan.n_ranks(); ++r) {
      const RankPart& part = plan.parts[r];
      const char* place = part.gpu ? "gpu" : "host";
      const int64_t fixed = plan.rank_bytes(r, "", place) - plan.rank_bytes(r, "kv");
      const Range& layers = plan.stages[part.stage].layers;
      const int64_t kv_bytes = kv_buffers(model, part, layers, kv).total();
      if (fixed + kv_bytes > free_bytes(cluster.ranks[r], place)) return false;
    }
    return true;
  };
  // Whole pages: low fits, high does not.
  int64_t low = 0;
  int64_t high = div_up(plan.kv.context, plan.kv.page_tokens);
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (fits(middle * plan.kv.page_tokens) ? low : high) = middle;
  }
  return low * plan.kv.page_tokens;
}

// "weights 3.1 GiB, kv 512.0 MiB, program 18.2 MiB": the greatest three.
std::string greatest_groups(const Plan& plan, int rank, const std::string& place) {
  std::vector<std::pair<int64_t, const char*>> sizes;
  for (const char* name : {"weights", "kv", "activations", "program"}) {
    sizes.emplace_back(plan.rank_bytes(rank, name, place), name);
  }
  std::stable_sort(sizes.begin(), sizes.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  std::string groups;
  for (int i = 0; i < 3; ++i) {
    if (sizes[i].first == 0) continue;
    append_item(groups, ", ", std::string(sizes[i].second) + " " + size_text(sizes[i].first));
  }
  return groups;
}

[[noreturn]] void too_little_memory(const Plan& plan, const ModelSpec& model,
                                    const ClusterSpec& cluster, const Shortage& worst) {
  const RankSpec& spec = cluster.ranks[static_cast<size_t>(worst.rank)];
  const bool gpu = std::string(worst.place) == "gpu";
  const std::string what = "rank " + std::to_string(worst.rank) + " needs " +
                           size_text(plan.rank_bytes(worst.rank, "", worst.place)) +
                           (gpu ? " of GPU memory (" : " (") +
                           greatest_groups(plan, worst.rank, worst.place) + ") and has " +
                           size_text(free_bytes(spec, worst.place)) + " free";
  // A smaller cache spares host memory only where the host holds it.
  const bool holds_kv = plan.rank_bytes(worst.rank, "kv", worst.place) > 0;
  const int64_t context = holds_kv ? longest_context(plan, model, cluster) : 0;
  const std::string shorter = "the longest context that this split holds is " +
                              std::to_string(context) + " tokens (-c " + std::to_string(context) +
                              ")";
  std::string todo = context > 0 ? shorter + "; or start more ranks"
                                 : "no context fits: start more ranks on other hosts, free memory "
                                   "there, or give this rank a smaller share with --split";
  if (gpu) {
    todo = context > 0 ? shorter + "; or use --device cpu"
                       : "no context fits: free the GPU's memory, or use --device cpu";
  } else if (!holds_kv) {
    todo = "free memory on this host, or use --device cpu";
  }
  throw Error(what,
              plan_title(plan) + ", host " + spec.host +
                  (gpu ? ", GPU " + std::to_string(spec.gpu.ordinal) + " " + spec.gpu.name : ""),
              todo);
}

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
  const ClusterSpec cluster = like_ranks_equal(measured);
  check_model(model);
  check_request(model, cluster, request);
  Plan best;
  Shortage best_shortage;
  for (const Candidate& candidate : candidates(model, cluster.size(), request)) {
    Plan plan = lay_out(candidate, model, cluster, request);
    const Shortage lack = shortage(plan, cluster);
    const bool first = best.parts.empty();
    const bool fits_better = best_shortage.bytes > 0 && lack.bytes < best_shortage.bytes;
    const bool faster = lack.bytes <= 0 && best_shortage.bytes <= 0 &&
                        plan.prediction.total_ms * kWorthIt < best.prediction.total_ms;
    if (!first && !fits_better && !faster) continue;
    best = std::move(plan);
    best_shortage = lack;
  }
  CHECK(!best.parts.empty());
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

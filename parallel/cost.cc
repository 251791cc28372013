// See cost.h. Called by planner.cc (every candidate) and by tables. Allocates nothing that lasts,
// touches no machine.
#include "parallel/cost.h"

#include <algorithm>
#include <vector>

#include "kernels/core/packed_matrix.h"
#include "parallel/ledger.h"

namespace spillway {
namespace {

constexpr int64_t kSumBytes = 8;  // sums over ranks are f64
constexpr int64_t kHopBytes = 4;  // activations between stages are f32, and partial sums of GPUs
constexpr int64_t kPromptTokens = 512;  // of the prompt that prefill is predicted for
constexpr double kFloatSlowdown = 4.0;  // attention multiplies f32: a quarter of int8's lanes
constexpr double kUnitsPerMs = 1e6;     // 1e9 a second, in a millisecond

// First estimates for a rank on a GPU, to be replaced by what is measured there.
constexpr int64_t kGpuPromptTokens = 4096;
constexpr double kGpuReadShare = 0.75;       // of the read rate that products reach
constexpr double kGpuReadGbPerS = 1000.0;    // of a GPU that did not measure it
constexpr double kGpuMatrixTflops = 300.0;   // bf16, likewise
constexpr double kGpuLaunchMs = 0.004;       // of a kernel beyond the bytes that it reads
constexpr int64_t kGpuLaunchesPerLayer = 7;  // norm, qkv, rope, attend, o, gate and up, down
constexpr double kGopPerTflop = 500.0;       // 1e9 multiply-adds are 2e9 operations
// Sums between GPUs of one host: over peers' memory inside of a graph 4.0 us for 16 KB, NCCL 6.6
// (two H200s); 128 MB of NCCL at 287 GB/s, of which cards with fewer links have less. The sum also
// normalises, which spares the layer a launch.
constexpr double kPeerSumMs = 0.005;
constexpr double kPeerGbPerS = 150.0;
// From GPU to GPU at a hop between stages: a kernel on either side, and stores over the link.
constexpr double kPeerHopMs = 0.008;
// To pinned host memory and back from there, at a hop or at a sum that goes through the host.
constexpr double kHostCopyMs = 0.02;
constexpr double kHostCopyGbPerS = 50.0;

struct Rates {
  double read = 0;    // GB/s
  double matrix = 0;  // 1e9 multiply-adds/s
};

// What one half of a layer, or the head, asks of a rank.
struct Work {
  int64_t bytes = 0;
  int64_t products = 0;  // multiply-adds for one row
};

class Clock {
 public:
  Clock(const Plan& plan, const ModelSpec& model, const ClusterSpec& cluster)
      : plan_(plan), model_(model), cluster_(cluster), assumed_(assumed_cluster(1)) {
    const Rates fallback = {assumed_.ranks[0].read_gb_per_s, assumed_.ranks[0].matrix_gop_per_s};
    for (const RankSpec& rank : cluster.ranks) {
      const GpuSpec& gpu = rank.gpu;
      if (plan.parts[static_cast<size_t>(rank.rank)].gpu) {
        const double read = gpu.read_gb_per_s > 0 ? gpu.read_gb_per_s : kGpuReadGbPerS;
        const double tflops = gpu.matrix_tflops > 0 ? gpu.matrix_tflops : kGpuMatrixTflops;
        rates_.push_back({kGpuReadShare * read, kGopPerTflop * tflops});
        continue;
      }
      rates_.push_back({rank.read_gb_per_s > 0 ? rank.read_gb_per_s : fallback.read,
                        rank.matrix_gop_per_s > 0 ? rank.matrix_gop_per_s : fallback.matrix});
    }
    link_ = cluster.link.gb_per_s > 0 ? cluster.link : assumed_.link;
  }

  // A stage's products of one step with `rows` rows.
  double matrix_ms(const StagePlan& stage, int64_t rows) const {
    double ms = 0;
    if (plan_.on_gpu(stage)) {
      const int64_t launches = kGpuLaunchesPerLayer - (stage.ranks.size() > 1 ? 1 : 0);
      ms += static_cast<double>(stage.layers.size() * launches) * kGpuLaunchMs;
    }
    for (int64_t i = 0; i < stage.layers.size(); ++i) {
      ms += slowest(stage, rows, [&](int rank) { return attention(rank, stage, i); });
      ms += slowest(stage, rows, [&](int rank) { return feed_forward(rank, stage, i); });
    }
    return ms;
  }

  // Logits of one row, on the last stage.
  double head_ms() const {
    const MatrixSpec& head = head_matrix(model_);
    return slowest(plan_.stages.back(), 1, [&](int rank) {
      const int64_t n = plan_.parts[rank].output_rows.size();
      return Work{packed_bytes(head.type, n, model_.dim), n * model_.dim};
    });
  }

  // One row against `context` positions, or the window: the cache is read once.
  double attention_ms(const StagePlan& stage, int64_t context) const {
    return over_layers(stage, [&](int rank, const LayerSpec& layer, const LayerPart& part) {
      const int64_t bytes = 2 * seen_tokens(layer, context) * part.kv_heads.size() *
                            kv_row_bytes(plan_.kv.type, model_.head_dim);
      return static_cast<double>(bytes) / (rates_[rank].read * kUnitsPerMs);
    });
  }

  // The rows of a prompt from `first` to before `end`, each against all up to it or its window, for
  // q k and for the sum of v.
  double prefill_attention_ms(const StagePlan& stage, int64_t first, int64_t end) const {
    return over_layers(stage, [&](int rank, const LayerSpec& layer, const LayerPart& part) {
      const double pairs = pairs_before(layer, end) - pairs_before(layer, first);
      const double products = 2 * pairs * static_cast<double>(part.heads.size() * model_.head_dim);
      return products * kFloatSlowdown / (rates_[rank].matrix * kUnitsPerMs);
    });
  }

  double message_ms(int64_t bytes) const {
    return link_.latency_us * 1e-3 + static_cast<double>(bytes) / (link_.gb_per_s * kUnitsPerMs);
  }

  // Two sums a layer, one for the embedding.
  double collective_ms(size_t s, int64_t rows) const {
    const StagePlan& stage = plan_.stages[s];
    if (stage.ranks.size() < 2) return 0;
    const int64_t sums = 2 * stage.layers.size() + (s == 0 ? 1 : 0);
    return static_cast<double>(sums) * sum_ms(stage, rows);
  }

  // From the stage before to this one: from GPU to GPU where all of both reach each other, else a
  // message, and a GPU's rows through host memory.
  double hop_ms(size_t s, int64_t rows) const {
    const StagePlan& from = plan_.stages[s - 1];
    const StagePlan& to = plan_.stages[s];
    const int64_t bytes = rows * model_.dim * kHopBytes;
    if (plan_.on_gpu(from) && plan_.on_gpu(to) && peers(from) && peers(to) && one_host(from, to)) {
      return kPeerHopMs + static_cast<double>(bytes) / (kPeerGbPerS * kUnitsPerMs);
    }
    double ms = message_ms(bytes);
    if (plan_.on_gpu(from)) ms += host_copy_ms(bytes);
    if (plan_.on_gpu(to)) ms += host_copy_ms(bytes);
    return ms;
  }

  // The step itself and the gathering of logits.
  double step_messages_ms() const { return plan_.n_ranks() < 2 ? 0 : 2 * message_ms(0); }

  // A step of a prompt's rows from `first` to before `end` on one stage; the last one of a prompt
  // has logits.
  double prefill_step_ms(size_t s, int64_t first, int64_t end, bool last) const {
    const StagePlan& stage = plan_.stages[s];
    const int64_t rows = end - first;
    const bool head = last && s + 1 == plan_.stages.size();
    return matrix_ms(stage, rows) + prefill_attention_ms(stage, first, end) +
           collective_ms(s, rows) + (head ? head_ms() : 0);
  }

  // A prompt in steps of at most `step_rows` rows as the scheduler makes them: each stage has a
  // step of its own, and begins one when it is done with the one before and the rows have come. The
  // first step fills the pipeline, after that the slowest stage sets the pace.
  double prefill_ms(int64_t tokens, int64_t step_rows) const {
    std::vector<double> done(plan_.stages.size(), 0.0);  // when a stage is, with its last step
    for (int64_t first = 0; first < tokens; first += step_rows) {
      const int64_t end = std::min(tokens, first + step_rows);
      double come = 0;  // of the rows
      for (size_t s = 0; s < done.size(); ++s) {
        if (s > 0) come += hop_ms(s, end - first);
        done[s] = std::max(done[s], come) + prefill_step_ms(s, first, end, end == tokens);
        come = done[s];
      }
    }
    return done.back() + step_messages_ms();
  }

 private:
  static int64_t seen_tokens(const LayerSpec& layer, int64_t tokens) {
    return layer.window > 0 ? std::min(layer.window, tokens) : tokens;
  }

  // Of queries and keys, of the first `tokens` tokens: half of them squared without a window.
  static double pairs_before(const LayerSpec& layer, int64_t tokens) {
    const auto seen = static_cast<double>(seen_tokens(layer, tokens));
    return seen * (seen + 1) / 2 + (static_cast<double>(tokens) - seen) * seen;
  }

  static double host_copy_ms(int64_t bytes) {
    return kHostCopyMs + static_cast<double>(bytes) / (kHostCopyGbPerS * kUnitsPerMs);
  }

  // All of the stage on one host, each on a GPU of its own.
  bool peers(const StagePlan& stage) const {
    return std::all_of(stage.ranks.begin(), stage.ranks.end(), [&](int rank) {
      const RankSpec& first = cluster_.ranks[static_cast<size_t>(stage.ranks.front())];
      return cluster_.ranks[static_cast<size_t>(rank)].host == first.host &&
             ranks_on_gpu(cluster_, rank).size() == 1;
    });
  }

  bool one_host(const StagePlan& a, const StagePlan& b) const {
    return cluster_.ranks[static_cast<size_t>(a.ranks.front())].host ==
           cluster_.ranks[static_cast<size_t>(b.ranks.front())].host;
  }

  // One sum over a stage's ranks.
  double sum_ms(const StagePlan& stage, int64_t rows) const {
    const int64_t values = rows * model_.dim;
    if (!plan_.on_gpu(stage)) return message_ms(values * kSumBytes);
    const int64_t bytes = values * kHopBytes;
    if (!peers(stage)) return message_ms(bytes) + 2 * host_copy_ms(bytes);
    // Each rank sends and receives all but its own part twice: once to add, once added.
    const auto n = static_cast<double>(stage.ranks.size());
    return kPeerSumMs + 2 * (n - 1) / n * static_cast<double>(bytes) / (kPeerGbPerS * kUnitsPerMs);
  }

  Work attention(int rank, const StagePlan& stage, int64_t i) const {
    const LayerSpec& layer = model_.layers[stage.layers.begin + i];
    const LayerPart& part = plan_.parts[rank].layers[i];
    const int64_t heads = 2 * part.heads.size() + 2 * part.kv_heads.size();
    return {attention_weight_bytes(model_, layer, part), heads * model_.head_dim * model_.dim};
  }

  Work feed_forward(int rank, const StagePlan& stage, int64_t i) const {
    const LayerSpec& layer = model_.layers[stage.layers.begin + i];
    const LayerPart& part = plan_.parts[rank].layers[i];
    return {feed_forward_weight_bytes(model_, layer, part), 3 * part.ff.size() * model_.dim};
  }

  template <typename WorkOf>
  double slowest(const StagePlan& stage, int64_t rows, const WorkOf& work_of) const {
    double ms = 0;
    for (const int rank : stage.ranks) {
      const Work work = work_of(rank);
      const double read = static_cast<double>(work.bytes) / (rates_[rank].read * kUnitsPerMs);
      const double multiply = static_cast<double>(work.products) * static_cast<double>(rows) /
                              (rates_[rank].matrix * kUnitsPerMs);
      ms = std::max({ms, read, multiply});
    }
    return ms;
  }

  // Sum over a stage's layers of the slowest rank's body(rank, layer, part).
  template <typename Body>
  double over_layers(const StagePlan& stage, const Body& body) const {
    double ms = 0;
    for (int64_t i = 0; i < stage.layers.size(); ++i) {
      double slowest_ms = 0;
      for (const int rank : stage.ranks) {
        const LayerSpec& layer = model_.layers[stage.layers.begin + i];
        slowest_ms = std::max(slowest_ms, body(rank, layer, plan_.parts[rank].layers[i]));
      }
      ms += slowest_ms;
    }
    return ms;
  }

  const Plan& plan_;
  const ModelSpec& model_;
  const ClusterSpec& cluster_;
  ClusterSpec assumed_;
  std::vector<Rates> rates_;
  LinkSpec link_;
};

bool all_measured(const Plan& plan, const ClusterSpec& cluster) {
  const bool ranks =
      std::all_of(plan.parts.begin(), plan.parts.end(), [&cluster](const RankPart& part) {
        const RankSpec& rank = cluster.ranks[static_cast<size_t>(part.rank)];
        return part.gpu ? rank.gpu.read_gb_per_s > 0 : rank.measured;
      });
  return ranks && (cluster.size() == 1 || cluster.link.measured);
}

}  // namespace

const MatrixSpec& head_matrix(const ModelSpec& model) {
  return model.tied_output() ? model.embedding : model.output;
}

int64_t attention_weight_bytes(const ModelSpec& model, const LayerSpec& layer,
                               const LayerPart& part) {
  const int64_t q_rows = part.heads.size() * model.head_dim;
  const int64_t kv_rows = part.kv_heads.size() * model.head_dim;
  return packed_bytes(layer.q.type, q_rows, model.dim) +
         packed_bytes(layer.k.type, kv_rows, model.dim) +
         packed_bytes(layer.v.type, kv_rows, model.dim) +
         packed_bytes(layer.o.type, model.dim, q_rows);
}

int64_t feed_forward_weight_bytes(const ModelSpec& model, const LayerSpec& layer,
                                  const LayerPart& part) {
  const int64_t ff = part.ff.size();
  return packed_bytes(layer.gate.type, ff, model.dim) + packed_bytes(layer.up.type, ff, model.dim) +
         packed_bytes(layer.down.type, model.dim, ff);
}

Prediction predict(const Plan& plan, const ModelSpec& model, const ClusterSpec& cluster,
                   int64_t context) {
  CHECK_EQ(plan.n_ranks(), cluster.size());
  CHECK_GE(context, 0);
  const Clock clock(plan, model, cluster);
  Prediction out;
  for (size_t s = 0; s < plan.stages.size(); ++s) {
    const StagePlan& stage = plan.stages[s];
    out.matrix_ms += clock.matrix_ms(stage, 1);
    out.attention_ms += clock.attention_ms(stage, context);
    out.collective_ms += clock.collective_ms(s, 1);
    if (s > 0) out.hop_ms += clock.hop_ms(s, 1);
  }
  out.matrix_ms += clock.head_ms();
  out.hop_ms += clock.step_messages_ms();
  out.total_ms = out.matrix_ms + out.attention_ms + out.collective_ms + out.hop_ms;
  out.decode_tok_per_s = 1000.0 / out.total_ms;

  const int64_t prompt =
      std::min(plan.uses_gpu() ? kGpuPromptTokens : kPromptTokens, plan.kv.context);
  out.prefill_tok_per_s =
      static_cast<double>(prompt) * 1000.0 / clock.prefill_ms(prompt, plan.limits.max_rows);
  out.measured_cluster = all_measured(plan, cluster);
  return out;
}

int64_t weight_bytes_per_token(const Plan& plan, const ModelSpec& model, int rank) {
  CHECK(rank >= 0 && rank < plan.n_ranks());
  const RankPart& part = plan.parts[rank];
  const bool last = part.stage == plan.last_stage();
  // Asked for as no first stage: the embedding is read by the row, and a tied one appears as the
  // output that the head reads whole.
  const Range& layers = plan.stages[part.stage].layers;
  return weight_buffers(model, part, layers, false, last).total();
}

double predicted_step_ms(const Plan& plan, int64_t rows) {
  const double prefill = plan.prediction.prefill_tok_per_s;
  const double many = prefill > 0 ? 1000.0 * static_cast<double>(rows) / prefill : 0;
  return std::max(plan.prediction.total_ms, many);
}

}  // namespace spillway

// See cost.h. Called by planner.cc (every candidate) and by tables. Allocates nothing that lasts,
// touches no machine.
#include "parallel/cost.h"

#include <algorithm>

#include "kernels/core/packed_matrix.h"
#include "parallel/ledger.h"
#include "parallel/spill.h"
#include "parallel/stage_clock.h"

namespace spillway {
namespace {

constexpr int64_t kPromptTokens = 512;  // of the prompt that prefill is predicted for
constexpr int64_t kGpuPromptTokens = 4096;

// Sequences decoded together: in as many groups as there are stages, which take turns.
double sequences_tok_per_s(const Plan& plan, const StageClock& clock, int64_t context) {
  const int64_t n = plan.limits.max_sequences;
  const int64_t groups = std::min(n, static_cast<int64_t>(plan.stages.size()));
  const int64_t rows = div_up(n, groups);
  double all_ms = clock.round_trip_ms();
  double slowest_ms = 0;
  for (size_t s = 0; s < plan.stages.size(); ++s) {
    const StepShape step{.rows = rows, .context = context, .all_busy = groups > 1};
    const double ms = clock.times(s, step).total_ms() + clock.hop_ms(s, rows);
    all_ms += ms;
    slowest_ms = std::max(slowest_ms, ms);
  }
  // A group leaves the pipeline as often as the slowest stage lets it, and each passes all stages.
  const double period_ms = std::max(slowest_ms, all_ms / static_cast<double>(groups));
  return static_cast<double>(rows) * 1000.0 / period_ms;
}

// A prompt in steps of at most `step_rows` rows as the scheduler makes them: each stage has a step
// of its own, and begins one when it is done with the one before and the rows have come. The first
// step fills the pipeline, after that the slowest stage sets the pace. The last one has logits.
double prompt_ms(const Plan& plan, const StageClock& clock, int64_t tokens) {
  // Stages on CPUs of one host take from each other what that host has. (GPUs' stages multiply on
  // devices of their own.)
  const bool overlap = tokens > plan.limits.max_rows && !plan.uses_gpu();
  std::vector<double> done(plan.stages.size(), 0.0);  // when a stage is, with its last step
  for (int64_t first = 0; first < tokens; first += plan.limits.max_rows) {
    const int64_t rows = std::min(tokens - first, plan.limits.max_rows);
    const bool last = first + rows == tokens;
    double come = 0;  // of the rows
    for (size_t s = 0; s < done.size(); ++s) {
      come += clock.hop_ms(s, rows);
      done[s] =
          std::max(done[s], come) + clock.times(s, {rows, first, true, last, overlap}).total_ms();
      come = done[s];
    }
  }
  return done.back() + clock.round_trip_ms();
}

bool all_measured(const Plan& plan, const ClusterSpec& cluster) {
  const bool ranks =
      std::all_of(plan.parts.begin(), plan.parts.end(), [&cluster](const RankPart& part) {
        const RankSpec& rank = cluster.ranks[static_cast<size_t>(part.rank)];
        return rank.measured && (!part.gpu || rank.gpu.read_gb_per_s > 0);
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
  const StageClock clock(plan, model, cluster);
  Prediction out;
  out.hop_ms = clock.round_trip_ms();
  for (size_t s = 0; s < plan.stages.size(); ++s) {
    const StageTimes times = clock.times(s, {1, context, false});
    out.matrix_ms += times.matrix_ms;
    out.attention_ms += times.attention_ms;
    out.launch_ms += times.launch_ms;
    out.collective_ms += times.collective_ms;
    out.cpu_ms += times.waits.cpu_ms;
    out.bus_ms += times.waits.bus_ms;
    out.disk_ms += times.waits.disk_ms;
    out.hop_ms += clock.hop_ms(s, 1);
    out.total_ms += times.total_ms();
  }
  out.total_ms += out.hop_ms;
  out.decode_tok_per_s = 1000.0 / out.total_ms;
  out.sequences_tok_per_s = plan.limits.max_sequences == 1 && plan.stages.size() == 1
                                ? out.decode_tok_per_s
                                : sequences_tok_per_s(plan, clock, context);

  const int64_t prompt =
      std::min(plan.uses_gpu() ? kGpuPromptTokens : kPromptTokens, plan.kv.context);
  out.prefill_tok_per_s = static_cast<double>(prompt) * 1000.0 / prompt_ms(plan, clock, prompt);
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
  int64_t bytes = 0;
  for (const WeightHome home : {WeightHome::kDevice, WeightHome::kHost, WeightHome::kDisk}) {
    if (home != WeightHome::kDevice && !spills_to(part, home)) continue;
    bytes += weight_bytes(model, part, layers, false, last, home);
  }
  return bytes;
}

double predicted_step_ms(const Plan& plan, int64_t rows) {
  const double prefill = plan.prediction.prefill_tok_per_s;
  const double many = prefill > 0 ? 1000.0 * static_cast<double>(rows) / prefill : 0;
  return std::max(plan.prediction.total_ms, many);
}

}  // namespace spillway

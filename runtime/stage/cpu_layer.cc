// See cpu_layer.h. Bits: every product of a row is independent of the split; the two sums are f64
// sums of f32 values, added to x with one rounding (docs/numerics.md).
#include "runtime/stage/cpu_layer.h"

#include <algorithm>
#include <cmath>

namespace spillway {
namespace {

void norm_input(CpuStep& step, View2D<const float> x, std::span<const float> weight,
                std::span<const PackedMatrix> readers) {
  const cpu::Activations input = step.scratch.normed.of(x.rows, x.cols);
  cpu::rms_norm(step.exec, x, weight, static_cast<float>(step.model.norm_eps),
                step.scratch.normed.view(x.rows, x.cols));
  if (reads_int8(readers)) cpu::quantize_rows(step.exec, input);
  step.lap(CpuWork::kOther);
}

// x += the sum over ranks of w * input, and the bias once; through the post norm when there is one.
void sum_into(CpuStep& step, const PackedMatrix& w, const InputBuffer& input,
              std::span<const float> bias, std::span<const float> post_norm, View2D<float> x) {
  const cpu::Activations a = input.of(x.rows, w.cols);
  if (w.cols > 0 && reads_int8({&w, 1})) cpu::quantize_rows(step.exec, a);
  step.lap(CpuWork::kOther);
  const View2D<double> partial = step.scratch.partial.head_rows(x.rows);
  cpu::matmul_partial(step.exec, w, a, partial);
  step.lap(CpuWork::kMatrix);
  step.tp.all_reduce({partial.data, static_cast<size_t>(partial.rows * partial.cols)});
  step.lap(CpuWork::kCollective);
  if (post_norm.empty()) {
    cpu::add_residual(step.exec, partial, x);
    cpu::add_bias(step.exec, bias, x);
    return;
  }
  // The half's input is not needed any more. The norm sees the sum of all ranks, rounded once.
  const View2D<float> sum = step.scratch.normed.view(x.rows, x.cols);
  cpu::round_sum(step.exec, partial, sum);
  cpu::add_bias(step.exec, bias, sum);
  cpu::rms_norm(step.exec, sum, post_norm, static_cast<float>(step.model.norm_eps), sum);
  cpu::add_rows(step.exec, sum, x);
}

}  // namespace

bool reads_int8(std::span<const PackedMatrix> matrices) {
  return std::any_of(matrices.begin(), matrices.end(),
                     [](const PackedMatrix& w) { return quant_info(w.type).block_elements > 1; });
}

void attention_half(CpuStep& step, const LayerWeights& w, const KvView& kv, View2D<float> x) {
  const int64_t head_dim = step.model.head_dim;
  const int64_t q_cols = w.part.heads.size() * head_dim;
  const int64_t kv_cols = w.part.kv_heads.size() * head_dim;
  const int64_t n = x.rows;
  norm_input(step, x, w.attention_norm, w.qkv);

  const View2D<float> qkv(step.scratch.qkv, n, q_cols + 2 * kv_cols);
  cpu::matmul(step.exec, w.qkv, step.scratch.normed.of(n, x.cols), qkv);
  step.lap(CpuWork::kMatrix);
  const View2D<float> q = qkv.columns(0, q_cols);
  const View2D<float> k = qkv.columns(q_cols, kv_cols);
  const View2D<float> v = qkv.columns(q_cols + kv_cols, kv_cols);
  cpu::add_bias(step.exec, w.q_bias, q);
  cpu::add_bias(step.exec, w.k_bias, k);
  cpu::add_bias(step.exec, w.v_bias, v);

  const float eps = static_cast<float>(step.model.norm_eps);
  cpu::rms_norm_heads(step.exec, w.q_norm, eps, q);
  cpu::rms_norm_heads(step.exec, w.k_norm, eps, k);
  step.lap(CpuWork::kOther);

  const cpu::RopePairing pairing =
      step.model.rope.halves ? cpu::RopePairing::kHalves : cpu::RopePairing::kAdjacent;
  const cpu::RopeTable& rope = w.window > 0 ? step.window_rope : step.rope;
  cpu::rope(step.exec, rope, pairing, head_dim, q);
  cpu::rope(step.exec, rope, pairing, head_dim, k);
  cpu::kv_write(step.exec, k, v, step.slots, kv);

  const HeadMap heads{w.part.heads.size(), w.part.heads.begin, step.model.heads_per_kv(),
                      w.part.kv_heads.begin};
  const double scale = step.model.query_scale > 0 ? step.model.query_scale
                                                  : 1.0 / std::sqrt(static_cast<double>(head_dim));
  cpu::attend(step.exec, q, step.sequences, heads, kv, {static_cast<float>(scale), w.window},
              step.scratch.attended.view(n, q_cols));
  step.lap(CpuWork::kAttention);
  sum_into(step, w.o, step.scratch.attended, w.o_bias, w.attention_post_norm, x);
}

void feed_forward_half(CpuStep& step, const LayerWeights& w, View2D<float> x) {
  const int64_t ff = w.part.ff.size();
  const int64_t n = x.rows;
  norm_input(step, x, w.feed_forward_norm, w.gate_up);

  const View2D<float> gate_up(step.scratch.gate_up, n, 2 * ff);
  cpu::matmul(step.exec, w.gate_up, step.scratch.normed.of(n, x.cols), gate_up);
  step.lap(CpuWork::kMatrix);
  cpu::add_bias(step.exec, w.gate_bias, gate_up.columns(0, ff));
  cpu::add_bias(step.exec, w.up_bias, gate_up.columns(ff, ff));
  const auto gated = step.model.activation == GateActivation::kGelu ? cpu::geglu : cpu::swiglu;
  gated(step.exec, gate_up, step.scratch.gated.view(n, ff));
  sum_into(step, w.down, step.scratch.gated, w.down_bias, w.feed_forward_post_norm, x);
}

}  // namespace spillway

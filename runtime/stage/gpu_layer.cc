// See gpu_layer.h.
#include "runtime/stage/gpu_layer.h"

#include <cmath>

namespace spillway {
namespace {

unsigned forms_of(const cuda::Exec& exec, std::span<const PackedMatrix> readers, int64_t n) {
  unsigned forms = 0;
  for (const PackedMatrix& w : readers) forms |= cuda::input_forms(exec, w.type, n);
  return forms;
}

cuda::Input norm_input(GpuStep& step, View2D<float> x, std::span<const float> weight,
                       std::span<const PackedMatrix> readers) {
  const cuda::Input input = step.scratch.normed.of(x.rows, x.cols);
  const auto eps = static_cast<float>(step.model.norm_eps);
  const unsigned forms = forms_of(step.exec, readers, x.rows);
  if (step.pending) {
    const View2D<const float> partial(step.scratch.partial, x.rows, x.cols);
    step.tp->sum(step.exec, {partial, x, true, weight.data(), eps, forms, input});
    step.pending = false;
  } else {
    cuda::rms_norm(step.exec, x, weight.data(), eps, forms, input);
  }
  return input;
}

void add_bias(GpuStep& step, std::span<const float> bias, View2D<float> x) {
  if (!bias.empty()) cuda::add_bias(step.exec, bias.data(), x);
}

// x += the sum over the TP group of w * input and the bias, later: step.pending. Through the post
// norm when there is one, at once.
void sum_over_ranks(GpuStep& step, const PackedMatrix& w, const cuda::Input& input,
                    std::span<const float> bias, std::span<const float> post_norm,
                    View2D<float> x) {
  const View2D<float> partial(step.scratch.partial, x.rows, x.cols);
  if (w.cols > 0) {
    cuda::matmul(step.exec, {&w, 1}, input, partial);
  } else {
    cuda::fill_zero(step.exec.stream, partial.data, x.rows * x.cols * 4);
  }
  if (step.tp->rank() == 0) add_bias(step, bias, partial);
  if (post_norm.empty()) {
    step.pending = true;
    return;
  }
  const cuda::Input sum = step.scratch.normed.of(x.rows, x.cols);
  const View2D<float> view(sum.x, x.rows, x.cols);
  step.tp->sum(step.exec, {partial, view, false, post_norm.data(),
                           static_cast<float>(step.model.norm_eps), cuda::kFloatForm, sum});
  cuda::add_rows(step.exec, view, x);
}

// x += w * input and the bias; through the post norm when there is one.
void sum_into(GpuStep& step, const PackedMatrix& w, const cuda::Input& input,
              std::span<const float> bias, std::span<const float> post_norm, View2D<float> x) {
  if (step.tp != nullptr) return sum_over_ranks(step, w, input, bias, post_norm, x);
  if (post_norm.empty()) {
    cuda::matmul_add(step.exec, w, input, x);
    add_bias(step, bias, x);
    return;
  }
  // The half's own input is not needed any more.
  const cuda::Input sum = step.scratch.normed.of(x.rows, x.cols);
  const View2D<float> view(sum.x, x.rows, x.cols);
  cuda::matmul(step.exec, {&w, 1}, input, view);
  add_bias(step, bias, view);
  cuda::rms_norm(step.exec, view, post_norm.data(), static_cast<float>(step.model.norm_eps),
                 cuda::kFloatForm, sum);
  cuda::add_rows(step.exec, view, x);
}

void norm_heads(GpuStep& step, std::span<const float> weight, View2D<float> x) {
  if (weight.empty()) return;
  cuda::rms_norm_heads(step.exec, weight.data(), static_cast<float>(step.model.norm_eps),
                       step.model.head_dim, x);
}

}  // namespace

void gpu_attention_half(GpuStep& step, const LayerWeights& w, const KvView& kv, View2D<float> x) {
  const int64_t head_dim = step.model.head_dim;
  const int64_t q_cols = w.part.heads.size() * head_dim;
  const int64_t kv_cols = w.part.kv_heads.size() * head_dim;
  const int64_t n = x.rows;
  const cuda::Input normed = norm_input(step, x, w.attention_norm, w.qkv);
  const cuda::Input attended = step.scratch.attended.of(n, q_cols);
  if (q_cols == 0) return sum_into(step, w.o, attended, w.o_bias, w.attention_post_norm, x);
  const View2D<float> qkv(step.scratch.qkv, n, q_cols + 2 * kv_cols);
  cuda::matmul(step.exec, w.qkv, normed, qkv);
  const View2D<float> q = qkv.columns(0, q_cols);
  const View2D<float> k = qkv.columns(q_cols, kv_cols);
  const View2D<float> v = qkv.columns(q_cols + kv_cols, kv_cols);
  add_bias(step, w.q_bias, q);
  add_bias(step, w.k_bias, k);
  add_bias(step, w.v_bias, v);
  norm_heads(step, w.q_norm, q);
  norm_heads(step, w.k_norm, k);

  const cuda::RopePairing pairing =
      step.model.rope.halves ? cuda::RopePairing::kHalves : cuda::RopePairing::kAdjacent;
  cuda::rope_kv_write(step.exec, w.window > 0 ? step.window_rope : step.rope, pairing, q, k, v,
                      step.slots, kv);

  const HeadMap heads{w.part.heads.size(), w.part.heads.begin, step.model.heads_per_kv(),
                      w.part.kv_heads.begin};
  const double scale = step.model.query_scale > 0 ? step.model.query_scale
                                                  : 1.0 / std::sqrt(static_cast<double>(head_dim));
  cuda::attend(step.exec, q, step.rows, heads, kv, {static_cast<float>(scale), w.window},
               step.scratch.attend, forms_of(step.exec, {&w.o, 1}, n), attended);
  sum_into(step, w.o, attended, w.o_bias, w.attention_post_norm, x);
}

void gpu_feed_forward_half(GpuStep& step, const LayerWeights& w, View2D<float> x) {
  const int64_t ff = w.part.ff.size();
  const int64_t n = x.rows;
  const bool gelu = step.model.activation == GateActivation::kGelu;
  const cuda::Input normed = norm_input(step, x, w.feed_forward_norm, w.gate_up);
  const cuda::Input gated = step.scratch.gated.of(n, ff);
  if (ff == 0) return sum_into(step, w.down, gated, w.down_bias, w.feed_forward_post_norm, x);
  const unsigned forms = forms_of(step.exec, {&w.down, 1}, n);
  const bool biased = !w.gate_bias.empty() || !w.up_bias.empty();
  if (!biased && cuda::fused_gate(step.exec, w.gate_up[0], w.gate_up[1], n, forms)) {
    cuda::matmul_gated(step.exec, w.gate_up[0], w.gate_up[1], gelu, normed, forms, gated);
  } else {
    const View2D<float> gate_up(step.scratch.gate_up, n, 2 * ff);
    cuda::matmul(step.exec, w.gate_up, normed, gate_up);
    add_bias(step, w.gate_bias, gate_up.columns(0, ff));
    add_bias(step, w.up_bias, gate_up.columns(ff, ff));
    cuda::gated_activation(step.exec, gate_up, gelu, forms, gated);
  }
  sum_into(step, w.down, gated, w.down_bias, w.feed_forward_post_norm, x);
}

void settle(GpuStep& step, View2D<float> x) {
  if (!step.pending) return;
  step.tp->sum(step.exec, {View2D<const float>(step.scratch.partial, x.rows, x.cols), x, true});
  step.pending = false;
}

}  // namespace spillway

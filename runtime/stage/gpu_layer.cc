// See gpu_layer.h.
#include "runtime/stage/gpu_layer.h"

#include <array>
#include <cmath>

#include "kernels/core/check.h"

namespace spillway {
namespace {

void norm_heads(GpuStep& step, std::span<const float> weight, View2D<float> x) {
  if (weight.empty()) return;
  cuda::rms_norm_heads(step.exec, weight.data(), static_cast<float>(step.model.norm_eps),
                       step.model.head_dim, x);
}

// act(Wgate n) * Wup n over some columns of the half, in the forms that down reads.
void gate(GpuStep& step, const LayerWeights& w, const FeedForwardColumns& m,
          const NormedInput& normed, const cuda::Input& gated) {
  const int64_t n = gated.n;
  const int64_t ff = gated.cols;
  const bool gelu = step.model.activation == GateActivation::kGelu;
  const unsigned forms = forms_of(step.exec, {&m.down, 1}, n);
  const bool biased = !w.gate_bias.empty() || !w.up_bias.empty();
  if (!biased && cuda::fused_gate(step.exec, m.gate_up[0], m.gate_up[1], n, forms)) {
    cuda::matmul_gated(step.exec, m.gate_up[0], m.gate_up[1], gelu, normed.input, forms, gated,
                       normed.blocks());
    return;
  }
  const View2D<float> gate_up(step.scratch.gate_up, n, 2 * ff);
  cuda::matmul(step.exec, m.gate_up, normed.input, gate_up, normed.blocks());
  add_bias(step, w.gate_bias, gate_up.columns(0, ff));
  add_bias(step, w.up_bias, gate_up.columns(ff, ff));
  cuda::gated_activation(step.exec, gate_up, gelu, forms, gated);
}

}  // namespace

void gpu_attention_half(GpuStep& step, const LayerWeights& w, const KvView& kv, View2D<float> x) {
  const int64_t head_dim = step.model.head_dim;
  const int64_t q_cols = w.part.heads.size() * head_dim;
  const int64_t kv_cols = w.part.kv_heads.size() * head_dim;
  const int64_t n = x.rows;
  const NormedInput normed = norm_input(step, x, w.attention_norm, w.qkv);
  const cuda::Input attended = step.scratch.attended.of(n, q_cols);
  if (q_cols == 0) {
    wait_for(step, normed);
    return sum_into(step, {}, w.o_bias, w.attention_post_norm, x);
  }
  const AttentionMatrices m = step.spill.attention(step.exec, w);
  const View2D<float> qkv(step.scratch.qkv, n, q_cols + 2 * kv_cols);
  cuda::matmul(step.exec, m.qkv, normed.input, qkv, normed.blocks());
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
  const cuda::RopeTable& rope = w.window > 0 ? step.window_rope : step.rope;
  const HeadMap heads{w.part.heads.size(), w.part.heads.begin, step.model.heads_per_kv(),
                      w.part.kv_heads.begin};
  const double scale = step.model.query_scale > 0 ? step.model.query_scale
                                                  : 1.0 / std::sqrt(static_cast<double>(head_dim));
  const cuda::AttendRule rule{static_cast<float>(scale), w.window};
  const unsigned forms = forms_of(step.exec, {&w.o, 1}, n);
  if (step.decode) {
    cuda::attend_decode(step.exec, rope, pairing, q, k, v, step.slots, step.rows, heads, kv, rule,
                        step.scratch.attend, forms, attended);
  } else {
    cuda::rope_kv_write(step.exec, rope, pairing, q, k, v, step.slots, kv);
    cuda::attend(step.exec, q, step.rows, heads, kv, rule, step.scratch.attend, forms, attended);
  }
  const Product product{m.o, attended};
  sum_into(step, {{&product, 1}, m.multiplied}, w.o_bias, w.attention_post_norm, x);
  step.spill.done(w, Half::kAttention);
}

void gpu_feed_forward_half(GpuStep& step, const LayerWeights& w, View2D<float> x) {
  const int64_t n = x.rows;
  const bool on_cpu = step.spill.on_cpu(w);
  const NormedInput normed =
      norm_input(step, x, w.feed_forward_norm, w.gate_up, on_cpu ? cuda::kFloatForm : 0u);
  if (w.part.ff.empty()) {
    wait_for(step, normed);
    return sum_into(step, {}, w.down_bias, w.feed_forward_post_norm, x);
  }
  // The copy for the CPU waits for no blocks of rows: it multiplies 512 at most (--cpu-rows), and
  // sums go aside from GpuAside::kLeastRows on.
  CHECK(!on_cpu || normed.n_blocks == 0);
  const CpuTerm cpu =
      step.spill.start_on_cpu(step.exec, w, View2D<const float>(normed.input.x, n, x.cols));
  const FeedForwardMatrices m = step.spill.feed_forward(step.exec, w);
  std::array<Product, 2> products;
  int64_t first_column = 0;
  for (size_t i = 0; i < m.n_pieces; ++i) {
    const FeedForwardColumns& columns = m.pieces[i];
    const int64_t ff = columns.down.cols;
    products[i] = {columns.down, step.scratch.gated.from_column(first_column, n, ff)};
    gate(step, w, columns, normed, products[i].input);
    first_column += ff;
  }
  sum_into(step, {std::span(products).first(m.n_pieces), m.multiplied, cpu}, w.down_bias,
           w.feed_forward_post_norm, x);
  step.spill.done(w, Half::kFeedForward);
}

}  // namespace spillway

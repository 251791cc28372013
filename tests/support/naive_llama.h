// NaiveLlama: the forward pass of a TinyModel in doubles, position by position, written from the
// papers and sharing nothing with the program: the reference for stage and engine.
//   Touvron et al., LLaMA, 2023 (the layer); Zhang and Sennrich, 2019 (RMSNorm); Su et al., 2021
//   (RoPE); Chen et al., 2023 (linear positions); Peng et al., YaRN, 2023; Ainslie et al., GQA,
//   2023; Shazeer, 2020 (SwiGLU, GEGLU); Hendrycks and Gimpel, 2016 (GELU); Gemma 3 Technical
//   Report, 2025 (norms of heads and of what a half adds, windows, embeddings times sqrt(dim)).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <string>
#include <vector>

#include "tests/support/tiny_model.h"

namespace spillway::testing {

class NaiveLlama {
 public:
  using Vector = std::vector<double>;

  // int8_inputs: round what products read as the program does beside quantised weights: to 127
  // steps of the greatest of every 32 values.
  explicit NaiveLlama(const TinyModel& model, bool int8_inputs = false)
      : m_(model), o_(model.options()), int8_inputs_(int8_inputs) {}

  // Logits of every position: [tokens.size()][vocab].
  std::vector<Vector> logits(const std::vector<int32_t>& tokens) const {
    std::vector<Vector> x;
    const std::vector<float> table = m_.values("token_embd.weight");
    for (const int32_t token : tokens) {
      const auto first = table.begin() + token * o_.dim;
      x.emplace_back(first, first + o_.dim);
      for (double& v : x.back()) v *= o_.gemma() ? std::sqrt(static_cast<double>(o_.dim)) : 1.0;
    }
    for (int64_t i = 0; i < o_.n_layers; ++i) layer(i, x);
    std::vector<Vector> out;
    for (const Vector& row : x) {
      out.push_back(product(m_.has("output.weight") ? "output.weight" : "token_embd.weight",
                            norm("output_norm.weight", row)));
    }
    return out;
  }

  // The angle that pair i of a head turns at a position, and the length it is stretched by.
  double angle(int64_t pair, int64_t position) const {
    const double d = static_cast<double>(o_.rot());
    double theta = std::pow(o_.rope_base, -2.0 * static_cast<double>(pair) / d);
    if (!o_.rope_freqs.empty()) {
      theta /= static_cast<double>(o_.rope_freqs[static_cast<size_t>(pair)]);
    }
    if (o_.rope_scaling == "linear") theta /= o_.rope_factor;
    if (o_.rope_scaling == "yarn") {
      // Turns over the training's context: pairs of more than 32 keep their angle, of fewer than
      // one are interpolated, a ramp lies between. The ramp's ends are whole pairs.
      const double low = std::max(0.0, std::floor(pair_with_turns(32.0)));
      const double high = std::min(d - 1.0, std::ceil(pair_with_turns(1.0)));
      const double width = std::max(0.001, high - low);
      const double interpolate = std::clamp((static_cast<double>(pair) - low) / width, 0.0, 1.0);
      theta = interpolate * theta / o_.rope_factor + (1.0 - interpolate) * theta;
    }
    return theta * static_cast<double>(position);
  }
  double stretch() const {
    return o_.rope_scaling == "yarn" ? 0.1 * std::log(o_.rope_factor) + 1.0 : 1.0;
  }

  double window_angle(int64_t pair, int64_t position) const {
    const double exponent = -2.0 * static_cast<double>(pair) / static_cast<double>(o_.rot());
    return std::pow(o_.window_rope_base, exponent) * static_cast<double>(position);
  }

 private:
  double pair_with_turns(double turns) const {
    const double context = static_cast<double>(o_.rope_original_context);
    return static_cast<double>(o_.rot()) / (2.0 * std::log(o_.rope_base)) *
           std::log(context / (2.0 * std::numbers::pi * turns));
  }

  Vector norm(const std::string& weight, const Vector& x) const {
    const std::vector<float> w = m_.values(weight);
    double squares = 0;
    for (const double v : x) squares += v * v;
    const double scale =
        1.0 / std::sqrt(squares / static_cast<double>(x.size()) + TinyModel::kNormEps);
    Vector out;
    for (size_t i = 0; i < x.size(); ++i) out.push_back(x[i] * scale * static_cast<double>(w[i]));
    return out;
  }

  // y = W x + b, the bias when there is one.
  Vector product(const std::string& weight, Vector x, const std::string& bias = "") const {
    if (int8_inputs_) round_to_int8(x);
    const std::vector<float> w = m_.values(weight);
    const std::vector<float> b = m_.values(bias);
    Vector out(w.size() / x.size());
    for (size_t r = 0; r < out.size(); ++r) {
      for (size_t c = 0; c < x.size(); ++c) {
        out[r] += static_cast<double>(w[r * x.size() + c]) * x[c];
      }
      if (!b.empty()) out[r] += static_cast<double>(b[r]);
    }
    return out;
  }

  static void round_to_int8(Vector& x) {
    for (size_t block = 0; block < x.size(); block += 32) {
      double most = 0;
      for (size_t i = block; i < block + 32; ++i) most = std::max(most, std::fabs(x[i]));
      const double step = most / 127.0;
      for (size_t i = block; i < block + 32 && step > 0; ++i) {
        x[i] = std::nearbyint(x[i] / step) * step;
      }
    }
  }

  // x becomes x + y, y normed first when there is a weight for it.
  void add_normed(const std::string& weight, Vector& x, const Vector& y) const {
    add(x, m_.has(weight) ? norm(weight, y) : y);
  }

  // Every head by itself.
  void norm_heads(const std::string& weight, Vector& x) const {
    if (!m_.has(weight)) return;
    for (auto head = x.begin(); head != x.end(); head += o_.head_dim) {
      const Vector n = norm(weight, {head, head + o_.head_dim});
      std::copy(n.begin(), n.end(), head);
    }
  }

  void turn(Vector& x, int64_t position, bool windowed) const {
    const bool halves = o_.architecture != "llama";
    const int64_t pairs = o_.rot() / 2;
    for (size_t head = 0; head < x.size(); head += static_cast<size_t>(o_.head_dim)) {
      for (int64_t i = 0; i < pairs; ++i) {
        double& a = x[head + static_cast<size_t>(halves ? i : 2 * i)];
        double& b = x[head + static_cast<size_t>(halves ? i + pairs : 2 * i + 1)];
        const double by = windowed ? window_angle(i, position) : angle(i, position);
        const double c = std::cos(by) * stretch();
        const double s = std::sin(by) * stretch();
        const double old_a = a;
        a = old_a * c - b * s;
        b = old_a * s + b * c;
      }
    }
  }

  // Softmax over the positions given, for every head with its group's keys and values.
  Vector attend(const Vector& q, const std::vector<Vector>& keys,
                const std::vector<Vector>& values) const {
    const int64_t d = o_.head_dim;
    Vector out(q.size(), 0.0);
    for (int64_t h = 0; h < o_.heads; ++h) {
      const auto mine = static_cast<size_t>(h * d);
      const auto shared = static_cast<size_t>(h / (o_.heads / o_.kv_heads) * d);
      Vector scores;
      double best = -INFINITY;
      for (const Vector& key : keys) {
        double dot = 0;
        for (size_t i = 0; i < static_cast<size_t>(d); ++i) dot += q[mine + i] * key[shared + i];
        scores.push_back(dot / std::sqrt(static_cast<double>(d)));
        best = std::max(best, scores.back());
      }
      double sum = 0;
      for (double& score : scores) sum += score = std::exp(score - best);
      for (size_t p = 0; p < scores.size(); ++p) {
        for (size_t i = 0; i < static_cast<size_t>(d); ++i) {
          out[mine + i] += scores[p] / sum * values[p][shared + i];
        }
      }
    }
    return out;
  }

  static void add(Vector& x, const Vector& y) {
    for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];
  }

  double activation(double x) const {
    if (!o_.gemma()) return x / (1 + std::exp(-x));
    return x / 2 * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
  }

  void layer(int64_t index, std::vector<Vector>& x) const {
    const std::string blk = "blk." + std::to_string(index) + ".";
    const bool windowed = o_.windowed(index);
    std::vector<Vector> keys;
    std::vector<Vector> values;
    for (size_t p = 0; p < x.size(); ++p) {
      const Vector n = norm(blk + "attn_norm.weight", x[p]);
      Vector q = product(blk + "attn_q.weight", n, blk + "attn_q.bias");
      Vector k = product(blk + "attn_k.weight", n, blk + "attn_k.bias");
      norm_heads(blk + "attn_q_norm.weight", q);
      norm_heads(blk + "attn_k_norm.weight", k);
      turn(q, static_cast<int64_t>(p), windowed);
      turn(k, static_cast<int64_t>(p), windowed);
      keys.push_back(k);
      values.push_back(product(blk + "attn_v.weight", n, blk + "attn_v.bias"));
      if (windowed && static_cast<int64_t>(keys.size()) > o_.window) {
        keys.erase(keys.begin());
        values.erase(values.begin());
      }
      add_normed(
          blk + "post_attention_norm.weight", x[p],
          product(blk + "attn_output.weight", attend(q, keys, values), blk + "attn_output.bias"));
    }
    for (Vector& row : x) {
      const Vector n = norm(blk + "ffn_norm.weight", row);
      Vector gate = product(blk + "ffn_gate.weight", n, blk + "ffn_gate.bias");
      const Vector up = product(blk + "ffn_up.weight", n, blk + "ffn_up.bias");
      for (size_t i = 0; i < gate.size(); ++i) gate[i] = activation(gate[i]) * up[i];
      add_normed(blk + "post_ffw_norm.weight", row,
                 product(blk + "ffn_down.weight", gate, blk + "ffn_down.bias"));
    }
  }

  const TinyModel& m_;
  const TinyOptions& o_;
  bool int8_inputs_;
};

}  // namespace spillway::testing

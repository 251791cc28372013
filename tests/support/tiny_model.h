// TinyModel: a Llama-, Qwen- or Gemma-like model of a few thousand weights, as a GGUF file and as
// floats. Called by tests of model, stage, engine and launch. The weights are random but the same
// on every machine: a counted generator per tensor name, no library distribution. Every tensor is
// encoded by the simple encoders below and kept decoded, so that a test's reference sees exactly
// the numbers in the file. Doors for bad files: leave out, reshape or retype a tensor, add any key.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "kernels/core/half.h"
#include "kernels/core/quant.h"
#include "tests/support/gguf_builder.h"

namespace spillway::testing {

struct TinyOptions {
  std::string architecture = "llama";
  int64_t n_layers = 2;
  int64_t heads = 4;
  int64_t kv_heads = 2;
  int64_t head_dim = 16;
  int64_t dim = 64;
  int64_t ff = 96;
  int64_t vocab = 80;
  int64_t context = 128;
  QuantType type = QuantType::kF32;         // of the matrices
  QuantType vector_type = QuantType::kF32;  // of norms and biases
  bool biases = false;
  bool tied = false;
  double rope_base = 10000.0;
  int64_t n_rot = 0;         // 0: the whole head, and no key in the file
  std::string rope_scaling;  // "", "linear", "yarn"
  double rope_factor = 1.0;
  int64_t rope_original_context = 0;
  std::vector<float> rope_freqs;
  int64_t window = 0;                 // gemma3's sliding window; 0: no key
  int64_t window_period = 6;          // every so manieth layer has none; no key when 6
  std::vector<int64_t> window_flags;  // the file's pattern by layer instead
  double window_rope_base = 10000.0;  // of layers with a window; no key when 10000
  uint32_t seed = 1;

  // Doors for files that differ: keys and tensors to leave out, keys to set on top, tensors with
  // other dims ({cols, rows}) or another type and zeros as data, single values of tensors.
  std::set<std::string> without;
  std::map<std::string, uint64_t> uints;
  std::map<std::string, double> numbers;
  std::map<std::string, std::string> texts;
  std::map<std::string, std::vector<int64_t>> reshape;
  std::map<std::string, QuantType> retype;
  std::map<std::string, std::map<size_t, float>> poke;

  int64_t rot() const { return n_rot > 0 ? n_rot : head_dim; }
  bool gemma() const { return architecture == "gemma3"; }
  bool windowed(int64_t layer) const {
    if (!gemma()) return false;
    return window_flags.empty() ? (layer + 1) % window_period != 0
                                : window_flags.at(static_cast<size_t>(layer)) != 0;
  }
  bool head_norms() const { return gemma() || architecture == "qwen3"; }
};

struct TinyTensor {
  std::vector<int64_t> dims;  // {cols} or {cols, rows}
  QuantType type = QuantType::kF32;
  std::string bytes;           // as in the file
  std::vector<float> decoded;  // row-major, what the bytes mean
};

// Encodes values (a multiple of the type's block) and says what the encoding means.
inline TinyTensor encode_tensor(QuantType type, std::vector<int64_t> dims,
                                const std::vector<float>& values) {
  TinyTensor tensor{std::move(dims), type, "", {}};
  const auto put_half = [&](float value) {
    const uint16_t half = f32_to_f16(value);
    internal::put(tensor.bytes, half);
    return f16_to_f32(half);
  };
  constexpr size_t kBlock = 32;
  for (size_t at = 0; at < values.size();) {
    if (type == QuantType::kF32) {
      internal::put(tensor.bytes, values[at]);
      tensor.decoded.push_back(values[at++]);
    } else if (type == QuantType::kF16) {
      tensor.decoded.push_back(put_half(values[at++]));
    } else if (type == QuantType::kQ8_0) {
      float most = 0;
      for (size_t i = 0; i < kBlock; ++i) most = std::max(most, std::fabs(values[at + i]));
      const float d = put_half(most / 127.0F);
      for (size_t i = 0; i < kBlock; ++i, ++at) {
        const float code = d > 0 ? std::nearbyint(values[at] / d) : 0.0F;
        const auto q = static_cast<int8_t>(std::clamp(code, -127.0F, 127.0F));
        internal::put(tensor.bytes, q);
        tensor.decoded.push_back(d * static_cast<float>(q));
      }
    } else if (type == QuantType::kQ4_1) {
      const auto first = values.begin() + static_cast<int64_t>(at);
      const auto [low, high] = std::minmax_element(first, first + kBlock);
      const float d = put_half((*high - *low) / 15.0F);
      const float m = put_half(*low);
      uint8_t codes[kBlock];
      for (size_t i = 0; i < kBlock; ++i, ++at) {
        const float code = d > 0 ? std::nearbyint((values[at] - m) / d) : 0.0F;
        codes[i] = static_cast<uint8_t>(std::clamp(code, 0.0F, 15.0F));
        tensor.decoded.push_back(d * static_cast<float>(codes[i]) + m);
      }
      for (size_t i = 0; i < kBlock / 2; ++i) {
        internal::put(tensor.bytes, static_cast<uint8_t>(codes[i] | codes[i + kBlock / 2] << 4));
      }
    } else {
      throw std::invalid_argument("TinyModel cannot encode this type");
    }
  }
  return tensor;
}

class TinyModel {
 public:
  explicit TinyModel(TinyOptions options) : o_(std::move(options)) {
    const int64_t q = o_.heads * o_.head_dim;
    const int64_t kv = o_.kv_heads * o_.head_dim;
    const double logit_spread = 3.0;
    matrix("token_embd.weight", o_.vocab, o_.dim, o_.tied ? logit_spread : 4.0);
    vector("output_norm.weight", o_.dim, 1.0, 0.2);
    if (!o_.tied) matrix("output.weight", o_.vocab, o_.dim, logit_spread);
    if (!o_.rope_freqs.empty()) {
      keep("rope_freqs.weight",
           encode_tensor(QuantType::kF32, {static_cast<int64_t>(o_.rope_freqs.size())},
                         o_.rope_freqs));
    }
    for (int64_t i = 0; i < o_.n_layers; ++i) {
      const std::string blk = "blk." + std::to_string(i) + ".";
      vector(blk + "attn_norm.weight", o_.dim, 1.0, 0.2);
      matrix(blk + "attn_q.weight", q, o_.dim, 1.5);
      matrix(blk + "attn_k.weight", kv, o_.dim, 1.5);
      matrix(blk + "attn_v.weight", kv, o_.dim, 1.0);
      matrix(blk + "attn_output.weight", o_.dim, q, 1.0);
      vector(blk + "ffn_norm.weight", o_.dim, 1.0, 0.2);
      matrix(blk + "ffn_gate.weight", o_.ff, o_.dim, 1.0);
      matrix(blk + "ffn_up.weight", o_.ff, o_.dim, 1.0);
      matrix(blk + "ffn_down.weight", o_.dim, o_.ff, 1.0);
      if (o_.head_norms()) {
        vector(blk + "attn_q_norm.weight", o_.head_dim, 1.0, 0.2);
        vector(blk + "attn_k_norm.weight", o_.head_dim, 1.0, 0.2);
      }
      if (o_.gemma()) {
        vector(blk + "post_attention_norm.weight", o_.dim, 1.0, 0.2);
        vector(blk + "post_ffw_norm.weight", o_.dim, 1.0, 0.2);
      }
      if (!o_.biases) continue;
      vector(blk + "attn_q.bias", q, 0.0, 0.5);
      vector(blk + "attn_k.bias", kv, 0.0, 0.5);
      vector(blk + "attn_v.bias", kv, 0.0, 0.5);
      vector(blk + "attn_output.bias", o_.dim, 0.0, 0.3);
      vector(blk + "ffn_gate.bias", o_.ff, 0.0, 0.3);
      vector(blk + "ffn_up.bias", o_.ff, 0.0, 0.3);
      vector(blk + "ffn_down.bias", o_.dim, 0.0, 0.3);
    }
  }

  const TinyOptions& options() const { return o_; }
  bool has(const std::string& name) const { return tensors_.count(name) > 0; }
  const TinyTensor& tensor(const std::string& name) const { return tensors_.at(name); }
  // Row-major floats as the file means them; empty when the model has no such tensor.
  std::vector<float> values(const std::string& name) const {
    return has(name) ? tensor(name).decoded : std::vector<float>();
  }
  static constexpr double kNormEps = 1e-5;

  GgufBuilder builder() const {
    GgufBuilder out;
    set_keys(out);
    for (const std::string& name : order_) {
      const TinyTensor& t = tensors_.at(name);
      if (o_.without.count(name) > 0) continue;
      const auto dims = o_.reshape.count(name) > 0 ? o_.reshape.at(name) : t.dims;
      if (o_.retype.count(name) == 0 && dims == t.dims) {
        out.add_tensor(name, dims, t.type, t.bytes);
        continue;
      }
      const QuantType type = o_.retype.count(name) > 0 ? o_.retype.at(name) : t.type;
      int64_t elements = 1;
      for (const int64_t n : dims) elements *= n;
      out.add_tensor(name, dims, type,
                     std::string(static_cast<size_t>(quant_bytes(type, elements)), '\0'));
    }
    return out;
  }
  std::string write(const std::string& path) const { return builder().write(path); }

 private:
  void set_keys(GgufBuilder& out) const {
    std::map<std::string, uint64_t> uints;
    std::map<std::string, double> numbers;
    std::map<std::string, std::string> texts;
    const std::string a = o_.architecture + ".";
    texts["general.architecture"] = o_.architecture;
    texts["general.name"] = "tiny";
    uints[a + "block_count"] = static_cast<uint64_t>(o_.n_layers);
    uints[a + "embedding_length"] = static_cast<uint64_t>(o_.dim);
    uints[a + "feed_forward_length"] = static_cast<uint64_t>(o_.ff);
    uints[a + "context_length"] = static_cast<uint64_t>(o_.context);
    uints[a + "attention.head_count"] = static_cast<uint64_t>(o_.heads);
    uints[a + "attention.head_count_kv"] = static_cast<uint64_t>(o_.kv_heads);
    uints[a + "attention.key_length"] = static_cast<uint64_t>(o_.head_dim);
    if (o_.window > 0) uints[a + "attention.sliding_window"] = static_cast<uint64_t>(o_.window);
    const std::string pattern = a + "attention.sliding_window_pattern";
    if (!o_.window_flags.empty()) {
      out.set_array(pattern, o_.window_flags);
    } else if (o_.window_period != 6) {
      uints[pattern] = static_cast<uint64_t>(o_.window_period);
    }
    if (o_.window_rope_base != 10000.0) numbers[a + "rope.freq_base_swa"] = o_.window_rope_base;
    if (o_.n_rot > 0) uints[a + "rope.dimension_count"] = static_cast<uint64_t>(o_.n_rot);
    numbers[a + "attention.layer_norm_rms_epsilon"] = kNormEps;
    numbers[a + "rope.freq_base"] = o_.rope_base;
    if (!o_.rope_scaling.empty()) {
      texts[a + "rope.scaling.type"] = o_.rope_scaling;
      numbers[a + "rope.scaling.factor"] = o_.rope_factor;
    }
    if (o_.rope_original_context > 0) {
      uints[a + "rope.scaling.original_context_length"] =
          static_cast<uint64_t>(o_.rope_original_context);
    }
    for (const auto& [key, value] : o_.uints) uints[key] = value;
    for (const auto& [key, value] : o_.numbers) numbers[key] = value;
    for (const auto& [key, value] : o_.texts) texts[key] = value;
    for (const auto& [key, value] : texts) {
      if (o_.without.count(key) == 0) out.set_string(key, value);
    }
    for (const auto& [key, value] : uints) {
      if (o_.without.count(key) > 0) continue;
      if (value > UINT32_MAX) {
        out.set_u64(key, value);
      } else {
        out.set_u32(key, static_cast<uint32_t>(value));
      }
    }
    for (const auto& [key, value] : numbers) {
      if (o_.without.count(key) == 0) out.set_f32(key, static_cast<float>(value));
    }
  }

  void keep(const std::string& name, TinyTensor tensor) {
    order_.push_back(name);
    tensors_.emplace(name, std::move(tensor));
  }

  // Near-normal numbers: the sum of four uniforms. Each tensor has a generator of its own.
  std::vector<float> random(const std::string& name, int64_t n, double mean, double spread) const {
    uint32_t hash = 2166136261U ^ o_.seed;
    for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 16777619U;
    std::mt19937 generator(hash);
    std::vector<float> values(static_cast<size_t>(n));
    for (float& value : values) {
      double sum = -2.0;
      for (int i = 0; i < 4; ++i) sum += static_cast<double>(generator() >> 8) * 0x1.0p-24;
      value = static_cast<float>(mean + spread * sum * 1.7320508);
    }
    if (o_.poke.count(name) > 0) {
      for (const auto& [index, value] : o_.poke.at(name)) values.at(index) = value;
    }
    return values;
  }
  // gain: the spread of an output for inputs of spread 1.
  void matrix(const std::string& name, int64_t rows, int64_t cols, double gain) {
    const double spread = gain / std::sqrt(static_cast<double>(cols));
    keep(name, encode_tensor(o_.type, {cols, rows}, random(name, rows * cols, 0.0, spread)));
  }
  void vector(const std::string& name, int64_t n, double mean, double spread) {
    keep(name, encode_tensor(o_.vector_type, {n}, random(name, n, mean, spread)));
  }

  TinyOptions o_;
  std::vector<std::string> order_;
  std::map<std::string, TinyTensor> tensors_;
};

}  // namespace spillway::testing

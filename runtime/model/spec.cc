// See spec.h. Keys: github.com/ggml-org/ggml, docs/gguf.md ("Standardized key-value pairs").
#include "runtime/model/spec.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "runtime/model/names.h"

namespace spillway {
namespace {

// Beyond these no model exists; a file that says so lies, and products of them would overflow.
constexpr uint64_t kMaxLayers = 4096;
constexpr uint64_t kMaxWidth = 1 << 20;
constexpr uint64_t kMaxVocab = 1 << 24;
constexpr uint64_t kMaxContext = 1ULL << 32;

std::string tensor_place(const Gguf& gguf, const GgufTensor& tensor) {
  return gguf.paths()[static_cast<size_t>(tensor.file)] + ", tensor " + tensor.name +
         " at offset " + std::to_string(tensor.offset);
}

class SpecReader {
 public:
  explicit SpecReader(const Gguf& gguf) : gguf_(gguf) {}

  ModelSpec read() {
    read_architecture();
    read_sizes();
    refuse_unknown_features();
    read_scales();
    read_rope();
    read_windows();
    read_global_tensors();
    refuse_unknown_tensors();
    spec_.layers.reserve(static_cast<size_t>(spec_.n_layers));
    for (int64_t i = 0; i < spec_.n_layers; ++i) spec_.layers.push_back(read_layer(i));
    return std::move(spec_);
  }

 private:
  std::string key(const char* suffix) const { return spec_.architecture + "." + suffix; }

  [[noreturn]] void fail(const std::string& what) const {
    throw Error(what, gguf_.paths().front(), "the file is damaged or made by another tool");
  }

  [[noreturn]] void unsupported(const std::string& what) const {
    throw Error(what, gguf_.paths().front(), "use a model without it");
  }

  int64_t size_of(const char* suffix, uint64_t fallback, uint64_t most) const {
    const std::string name = key(suffix);
    const uint64_t value = fallback == 0 ? gguf_.require_uint(name) : gguf_.uint_or(name, fallback);
    if (value == 0 || value > most) {
      fail(name + " is " + std::to_string(value) + ", must be 1 to " + std::to_string(most));
    }
    return static_cast<int64_t>(value);
  }

  void read_architecture() {
    spec_.architecture = std::string(gguf_.require_string("general.architecture"));
    architecture_ = find_architecture(spec_.architecture);
    if (architecture_ == nullptr) {
      throw Error("architecture " + spec_.architecture + " is not supported, supported are " +
                      supported_architectures(),
                  gguf_.paths().front());
    }
    spec_.name = std::string(gguf_.string_or("general.name", spec_.architecture));
    spec_.header_hash = gguf_.header_hash();
    spec_.file_bytes = gguf_.file_bytes();
  }

  void read_sizes() {
    spec_.n_layers = size_of("block_count", 0, kMaxLayers);
    spec_.dim = size_of("embedding_length", 0, kMaxWidth);
    spec_.ff_dim = size_of("feed_forward_length", 0, kMaxWidth);
    spec_.n_heads = size_of("attention.head_count", 0, kMaxWidth);
    spec_.n_kv_heads = size_of("attention.head_count_kv", spec_.n_heads, kMaxWidth);
    spec_.context_length = size_of("context_length", 0, kMaxContext);
    spec_.norm_eps = gguf_.double_or(key("attention.layer_norm_rms_epsilon"), 1e-5);
    if (!(spec_.norm_eps >= 0 && spec_.norm_eps < 1)) {
      fail(key("attention.layer_norm_rms_epsilon") + " is " + std::to_string(spec_.norm_eps));
    }
    if (spec_.n_heads % spec_.n_kv_heads != 0) {
      fail(std::to_string(spec_.n_kv_heads) + " KV heads do not divide " +
           std::to_string(spec_.n_heads) + " heads");
    }
    if (gguf_.find(key("attention.key_length")) == nullptr && spec_.dim % spec_.n_heads != 0) {
      fail(std::to_string(spec_.n_heads) + " heads do not divide the width " +
           std::to_string(spec_.dim));
    }
    spec_.head_dim =
        size_of("attention.key_length",
                static_cast<uint64_t>(std::max<int64_t>(1, spec_.dim / spec_.n_heads)), 256);
    const uint64_t value_dim =
        gguf_.uint_or(key("attention.value_length"), static_cast<uint64_t>(spec_.head_dim));
    if (value_dim != static_cast<uint64_t>(spec_.head_dim) || spec_.head_dim % 2 != 0) {
      fail("heads of " + std::to_string(spec_.head_dim) + " (keys) and " +
           std::to_string(value_dim) + " (values) are not supported, both must be equal and even");
    }
  }

  // What other models have and would be computed wrongly here: an Error, never ignored.
  void refuse_unknown_features() const {
    if (const uint64_t experts = gguf_.uint_or(key("expert_count"), 0); experts > 0) {
      unsupported("a mixture of " + std::to_string(experts) + " experts is not supported yet");
    }
    if (!gguf_.bool_or(key("attention.causal"), true)) {
      unsupported(key("attention.causal") + " is false: models that look ahead are not supported");
    }
    struct Feature {
      const char* suffix;
      double neutral;  // the value that changes nothing
    };
    constexpr Feature kFeatures[] = {
        {"attn_logit_softcapping", 0},   {"final_logit_softcapping", 0}, {"logit_scale", 1},
        {"residual_scale", 1},           {"embedding_scale", 1},         {"attention.clamp_kqv", 0},
        {"attention.max_alibi_bias", 0},
    };
    for (const Feature& feature : kFeatures) {
      const std::string name = key(feature.suffix);
      const double value = gguf_.double_or(name, feature.neutral);
      if (value == feature.neutral) continue;
      unsupported(name + " is " + std::to_string(value) + ", which is not supported in " +
                  spec_.architecture + " models");
    }
  }

  void read_scales() {
    spec_.activation = architecture_->activation;
    const double dim = static_cast<double>(spec_.dim);
    if (architecture_->embedding_by_width) spec_.embedding_scale = std::sqrt(dim);
    if (architecture_->query_by_width_layers == spec_.n_layers) {
      spec_.query_scale = 1.0 / std::sqrt(static_cast<double>(spec_.dim / spec_.n_heads));
    }
    const std::string name = key("attention.scale");
    if (gguf_.find(name) == nullptr) return;
    spec_.query_scale = gguf_.require_double(name);
    if (!(spec_.query_scale > 0) || !std::isfinite(spec_.query_scale)) {
      fail(name + " is " + std::to_string(spec_.query_scale) + ", must be above 0");
    }
  }

  void read_rope() {
    RopeSpec& rope = spec_.rope;
    rope.halves = architecture_->rope_halves;
    rope.n_rot = size_of("rope.dimension_count", static_cast<uint64_t>(spec_.head_dim), kMaxWidth);
    if (rope.n_rot > spec_.head_dim || rope.n_rot % 2 != 0) {
      fail(key("rope.dimension_count") + " is " + std::to_string(rope.n_rot) + ", a head has " +
           std::to_string(spec_.head_dim));
    }
    rope.base = gguf_.double_or(key("rope.freq_base"), 10000.0);
    read_rope_scaling();
    if (!(rope.base > 0) || !std::isfinite(rope.base) || !(rope.factor > 0) ||
        !std::isfinite(rope.factor)) {
      fail("RoPE base " + std::to_string(rope.base) + " or factor " + std::to_string(rope.factor) +
           " is not a positive number");
    }
    const TensorName* name = tensor_name(*architecture_, Field::kRopeFreqs);
    if (const GgufTensor* freqs = name != nullptr ? gguf_.tensor(name->name) : nullptr) {
      if (freqs->type != QuantType::kF32 || freqs->elements() != rope.n_rot / 2) {
        throw Error("rope_freqs must be " + std::to_string(rope.n_rot / 2) + " values of F32",
                    tensor_place(gguf_, *freqs));
      }
      if (freqs->data == nullptr) {  // the header alone: as if positions were not stretched
        rope.frequency_divisors.assign(static_cast<size_t>(rope.n_rot / 2), 1.0F);
        return;
      }
      const auto* values = reinterpret_cast<const float*>(freqs->data);
      rope.frequency_divisors.assign(values, values + rope.n_rot / 2);
      for (const float value : rope.frequency_divisors) {
        if (!(value > 0) || !std::isfinite(value)) {
          throw Error("rope_freqs holds " + std::to_string(value), tensor_place(gguf_, *freqs));
        }
      }
    }
  }

  void read_rope_scaling() {
    RopeSpec& rope = spec_.rope;
    const std::string_view type = gguf_.string_or(key("rope.scaling.type"), "");
    rope.factor =
        gguf_.double_or(key("rope.scaling.factor"), gguf_.double_or(key("rope.scale_linear"), 1.0));
    if (type == "linear" || (type.empty() && rope.factor != 1.0)) {
      rope.scaling = RopeScaling::kLinear;
    } else if (type == "yarn") {
      rope.scaling = RopeScaling::kYarn;
      read_yarn();
    } else if (type.empty() || type == "none") {
      rope.factor = 1.0;
    } else {
      fail("RoPE scaling \"" + std::string(type) +
           "\" is not supported, supported are none, "
           "linear, yarn and rope_freqs");
    }
  }

  void read_yarn() {
    RopeSpec& rope = spec_.rope;
    rope.original_context = size_of("rope.scaling.original_context_length",
                                    static_cast<uint64_t>(spec_.context_length), kMaxContext);
    rope.yarn_extrapolation = gguf_.double_or(key("rope.scaling.yarn_ext_factor"), 1.0);
    rope.yarn_attention = gguf_.double_or(key("rope.scaling.attn_factor"), 1.0);
    rope.yarn_beta_fast = gguf_.double_or(key("rope.scaling.yarn_beta_fast"), 32.0);
    rope.yarn_beta_slow = gguf_.double_or(key("rope.scaling.yarn_beta_slow"), 1.0);
    // The ramp's ends are logarithms to the base of turns.
    const double values[] = {rope.yarn_extrapolation, rope.yarn_attention, rope.yarn_beta_fast,
                             rope.yarn_beta_slow};
    const bool finite = std::all_of(std::begin(values), std::end(values),
                                    [](double value) { return std::isfinite(value); });
    if (!finite || !(rope.yarn_beta_fast > 0) || !(rope.yarn_beta_slow > 0) || !(rope.base > 1)) {
      fail("YaRN parameters ext_factor " + std::to_string(rope.yarn_extrapolation) +
           ", attn_factor " + std::to_string(rope.yarn_attention) + ", beta_fast " +
           std::to_string(rope.yarn_beta_fast) + ", beta_slow " +
           std::to_string(rope.yarn_beta_slow) + ", RoPE base " + std::to_string(rope.base) +
           " make no angles");
    }
  }

  // Which layers have a window, and how their heads turn.
  void read_windows() {
    windows_.assign(static_cast<size_t>(spec_.n_layers), 0);
    const std::string window_key = key("attention.sliding_window");
    if (architecture_->window_period == 0) {
      const uint64_t window = gguf_.uint_or(window_key, 0);
      if (window == 0 || window >= static_cast<uint64_t>(spec_.context_length)) return;
      unsupported(window_key + " is " + std::to_string(window) +
                  ": sliding windows are not supported in " + spec_.architecture + " models");
    }
    const int64_t window = size_of("attention.sliding_window", 0, kMaxContext);
    const std::vector<bool> windowed = window_pattern();
    for (size_t i = 0; i < windowed.size(); ++i) windows_[i] = windowed[i] ? window : 0;
    if (architecture_->window_rope_base == 0) return;
    RopeSpec rope;
    rope.halves = spec_.rope.halves;
    rope.n_rot = spec_.rope.n_rot;
    rope.base = gguf_.double_or(
        key("rope.freq_base_swa"),
        gguf_.double_or(key("rope.local.freq_base"), architecture_->window_rope_base));
    if (!(rope.base > 0) || !std::isfinite(rope.base)) {
      fail("RoPE base " + std::to_string(rope.base) +
           " of layers with a window is not a positive number");
    }
    spec_.window_rope = rope;
  }

  // The file's pattern is a flag for every layer, or a period: every so manieth layer sees all.
  std::vector<bool> window_pattern() const {
    const char* suffix = "attention.sliding_window_pattern";
    const GgufValue* value = gguf_.find(key(suffix));
    if (value != nullptr && value->is_array()) {
      const auto flags = value->as_ints();
      if (!flags || static_cast<int64_t>(flags->size()) != spec_.n_layers) {
        fail(key(suffix) + " is " + value->to_text() + ", must be a flag for each of " +
             std::to_string(spec_.n_layers) + " layers");
      }
      return {flags->begin(), flags->end()};
    }
    const int64_t period =
        size_of(suffix, static_cast<uint64_t>(architecture_->window_period), kMaxLayers);
    std::vector<bool> windowed;
    for (int64_t i = 0; i < spec_.n_layers; ++i) windowed.push_back((i + 1) % period != 0);
    return windowed;
  }

  // A tensor that is not in the table belongs to arithmetic that nobody here does.
  void refuse_unknown_tensors() const {
    for (const GgufTensor& tensor : gguf_.tensors()) {
      if (knows_tensor(*architecture_, spec_.n_layers, tensor.name)) continue;
      throw Error(spec_.architecture + " models of " + std::to_string(spec_.n_layers) +
                      " layers with such a tensor are not supported",
                  tensor_place(gguf_, tensor), "use a model without it");
    }
  }

  // The tensor's shape and type when it is [rows, cols]; rows = 0 when it is absent and may be.
  MatrixSpec matrix(Field field, int64_t layer, int64_t rows, int64_t cols) const {
    const TensorName* entry = tensor_name(*architecture_, field);
    if (entry == nullptr) return {};
    const std::string name = layer_tensor_name(*entry, layer);
    const GgufTensor* tensor = gguf_.tensor(name);
    if (tensor == nullptr) {
      if (entry->required) fail("tensor " + name + " is missing");
      return {};
    }
    if (tensor->rows() != rows || tensor->cols() != cols) {
      throw Error("has the shape " + std::to_string(tensor->rows()) + " x " +
                      std::to_string(tensor->cols()) + ", the metadata asks for " +
                      std::to_string(rows) + " x " + std::to_string(cols),
                  tensor_place(gguf_, *tensor));
    }
    const QuantInfo& info = quant_info(tensor->type);
    if (!info.computable) {
      throw Error(std::string("type ") + info.name + " is not supported yet",
                  tensor_place(gguf_, *tensor));
    }
    return {tensor->type, rows, cols};
  }

  // A vector of F32 (norms, biases); whether it is there.
  bool vector_present(Field field, int64_t layer, int64_t n) const {
    const MatrixSpec found = matrix(field, layer, 1, n);
    if (found.present() && found.type != QuantType::kF32 && found.type != QuantType::kF16) {
      fail("tensor " + layer_tensor_name(*tensor_name(*architecture_, field), layer) +
           " must be F32 or F16");
    }
    return found.present();
  }

  void read_global_tensors() {
    const TensorName* entry = tensor_name(*architecture_, Field::kEmbedding);
    const GgufTensor* embedding = gguf_.tensor(entry->name);
    if (embedding == nullptr) fail(std::string("tensor ") + entry->name + " is missing");
    spec_.vocab_size = embedding->rows();
    if (static_cast<uint64_t>(spec_.vocab_size) > kMaxVocab) {
      fail("a vocabulary of " + std::to_string(spec_.vocab_size) + " tokens");
    }
    // A token that is drawn must have a text, and one that is read a row.
    const GgufValue* tokens = gguf_.find("tokenizer.ggml.tokens");
    if (tokens != nullptr && tokens->is_array() && tokens->size() != spec_.vocab_size) {
      throw Error("has " + std::to_string(spec_.vocab_size) +
                      " rows, but tokenizer.ggml.tokens names " + std::to_string(tokens->size()) +
                      " tokens",
                  tensor_place(gguf_, *embedding), "convert the model again");
    }
    spec_.embedding = matrix(Field::kEmbedding, 0, spec_.vocab_size, spec_.dim);
    spec_.output = matrix(Field::kOutput, 0, spec_.vocab_size, spec_.dim);
    vector_present(Field::kOutputNorm, 0, spec_.dim);
  }

  LayerSpec read_layer(int64_t i) const {
    const int64_t q_rows = spec_.n_heads * spec_.head_dim;
    const int64_t kv_rows = spec_.n_kv_heads * spec_.head_dim;
    LayerSpec layer;
    vector_present(Field::kAttentionNorm, i, spec_.dim);
    layer.q = matrix(Field::kQ, i, q_rows, spec_.dim);
    layer.k = matrix(Field::kK, i, kv_rows, spec_.dim);
    layer.v = matrix(Field::kV, i, kv_rows, spec_.dim);
    layer.o = matrix(Field::kO, i, spec_.dim, q_rows);
    layer.q_bias = vector_present(Field::kQBias, i, q_rows);
    layer.k_bias = vector_present(Field::kKBias, i, kv_rows);
    layer.v_bias = vector_present(Field::kVBias, i, kv_rows);
    layer.o_bias = vector_present(Field::kOBias, i, spec_.dim);
    vector_present(Field::kFeedForwardNorm, i, spec_.dim);
    layer.gate = matrix(Field::kGate, i, spec_.ff_dim, spec_.dim);
    layer.up = matrix(Field::kUp, i, spec_.ff_dim, spec_.dim);
    layer.down = matrix(Field::kDown, i, spec_.dim, spec_.ff_dim);
    layer.gate_bias = vector_present(Field::kGateBias, i, spec_.ff_dim);
    layer.up_bias = vector_present(Field::kUpBias, i, spec_.ff_dim);
    layer.down_bias = vector_present(Field::kDownBias, i, spec_.dim);
    layer.q_norm = vector_present(Field::kQNorm, i, spec_.head_dim);
    layer.k_norm = vector_present(Field::kKNorm, i, spec_.head_dim);
    layer.attention_post_norm = vector_present(Field::kAttentionPostNorm, i, spec_.dim);
    layer.feed_forward_post_norm = vector_present(Field::kFeedForwardPostNorm, i, spec_.dim);
    layer.window = windows_[static_cast<size_t>(i)];
    return layer;
  }

  const Gguf& gguf_;
  const Architecture* architecture_ = nullptr;
  ModelSpec spec_;
  std::vector<int64_t> windows_;  // LayerSpec::window of every layer
};

}  // namespace

ModelSpec read_model_spec(const Gguf& gguf) { return SpecReader(gguf).read(); }

}  // namespace spillway

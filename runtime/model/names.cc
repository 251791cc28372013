// See names.h.
#include "runtime/model/names.h"

#include <array>
#include <charconv>

namespace spillway {
namespace {

// Llama's, and what most architectures begin with.
constexpr std::array<TensorName, 20> kLlamaTensors = {{
    {Field::kEmbedding, "token_embd.weight", SplitAxis::kVocabRows, true},
    {Field::kOutputNorm, "output_norm.weight", SplitAxis::kWhole, true},
    {Field::kOutput, "output.weight", SplitAxis::kVocabRows, false},
    {Field::kRopeFreqs, "rope_freqs.weight", SplitAxis::kWhole, false},
    {Field::kAttentionNorm, "blk.*.attn_norm.weight", SplitAxis::kWhole, true},
    {Field::kQ, "blk.*.attn_q.weight", SplitAxis::kHeadRows, true},
    {Field::kK, "blk.*.attn_k.weight", SplitAxis::kKvHeadRows, true},
    {Field::kV, "blk.*.attn_v.weight", SplitAxis::kKvHeadRows, true},
    {Field::kO, "blk.*.attn_output.weight", SplitAxis::kHeadCols, true},
    {Field::kQBias, "blk.*.attn_q.bias", SplitAxis::kHeadRows, false},
    {Field::kKBias, "blk.*.attn_k.bias", SplitAxis::kKvHeadRows, false},
    {Field::kVBias, "blk.*.attn_v.bias", SplitAxis::kKvHeadRows, false},
    {Field::kOBias, "blk.*.attn_output.bias", SplitAxis::kWhole, false},
    {Field::kFeedForwardNorm, "blk.*.ffn_norm.weight", SplitAxis::kWhole, true},
    {Field::kGate, "blk.*.ffn_gate.weight", SplitAxis::kFfRows, true},
    {Field::kUp, "blk.*.ffn_up.weight", SplitAxis::kFfRows, true},
    {Field::kDown, "blk.*.ffn_down.weight", SplitAxis::kFfCols, true},
    {Field::kGateBias, "blk.*.ffn_gate.bias", SplitAxis::kFfRows, false},
    {Field::kUpBias, "blk.*.ffn_up.bias", SplitAxis::kFfRows, false},
    {Field::kDownBias, "blk.*.ffn_down.bias", SplitAxis::kWhole, false},
}};

// Norms of every head's query and key.
constexpr std::array<TensorName, 2> kHeadNorms = {{
    {Field::kQNorm, "blk.*.attn_q_norm.weight", SplitAxis::kWhole, true},
    {Field::kKNorm, "blk.*.attn_k_norm.weight", SplitAxis::kWhole, true},
}};

// Norms of what a half of a layer adds to the residual stream.
constexpr std::array<TensorName, 2> kPostNorms = {{
    {Field::kAttentionPostNorm, "blk.*.post_attention_norm.weight", SplitAxis::kWhole, true},
    {Field::kFeedForwardPostNorm, "blk.*.post_ffw_norm.weight", SplitAxis::kWhole, true},
}};

template <size_t n, size_t m>
constexpr std::array<TensorName, n + m> joined(const std::array<TensorName, n>& a,
                                               const std::array<TensorName, m>& b) {
  std::array<TensorName, n + m> all = {};
  for (size_t i = 0; i < n; ++i) all[i] = a[i];
  for (size_t i = 0; i < m; ++i) all[n + i] = b[i];
  return all;
}

constexpr auto kHeadNormTensors = joined(kLlamaTensors, kHeadNorms);
constexpr auto kGemma3Tensors = joined(kHeadNormTensors, kPostNorms);

constexpr std::array<Architecture, 4> kArchitectures = {{
    {.name = "llama", .rope_halves = false, .tensors = kLlamaTensors},
    {.name = "qwen2", .rope_halves = true, .tensors = kLlamaTensors},
    {.name = "qwen3", .rope_halves = true, .tensors = kHeadNormTensors},
    {.name = "gemma3",
     .rope_halves = true,
     .tensors = kGemma3Tensors,
     .activation = GateActivation::kGelu,
     .embedding_by_width = true,
     .window_period = 6,
     .window_rope_base = 10000.0,
     .query_by_width_layers = 62},  // Gemma 3 27B
}};

}  // namespace

const Architecture* find_architecture(std::string_view name) {
  for (const Architecture& architecture : kArchitectures) {
    if (name == architecture.name) return &architecture;
  }
  return nullptr;
}

std::string supported_architectures() {
  std::string text;
  for (const Architecture& architecture : kArchitectures) {
    if (!text.empty()) text += ", ";
    text += architecture.name;
  }
  return text;
}

const TensorName* tensor_name(const Architecture& architecture, Field field) {
  for (const TensorName& tensor : architecture.tensors) {
    if (tensor.field == field) return &tensor;
  }
  return nullptr;
}

bool knows_tensor(const Architecture& architecture, int64_t n_layers, std::string_view name) {
  // "blk.7.attn_q.weight" is looked for as "blk.*.attn_q.weight".
  std::string pattern(name);
  constexpr std::string_view kLayer = "blk.";
  if (name.substr(0, kLayer.size()) == kLayer) {
    const char* begin = name.data() + kLayer.size();
    int64_t layer = 0;
    const auto [end, error] = std::from_chars(begin, name.data() + name.size(), layer);
    if (error != std::errc() || layer < 0 || layer >= n_layers) return false;
    if (std::to_string(layer) != std::string_view(begin, static_cast<size_t>(end - begin))) {
      return false;  // "blk.07"
    }
    pattern.replace(kLayer.size(), static_cast<size_t>(end - begin), "*");
  }
  for (const TensorName& tensor : architecture.tensors) {
    if (pattern == tensor.name) return true;
  }
  return false;
}

std::string layer_tensor_name(const TensorName& name, int64_t layer) {
  std::string text = name.name;
  const size_t star = text.find('*');
  if (star != std::string::npos) text.replace(star, 1, std::to_string(layer));
  return text;
}

}  // namespace spillway

// See names.h.
#include "runtime/model/names.h"

#include <array>

#include "kernels/core/check.h"

namespace spillway {
namespace {

// Llama and those that differ from it only in what is present (biases) and in the pairing of RoPE.
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

constexpr std::array<Architecture, 2> kArchitectures = {{
    {"llama", false, kLlamaTensors},
    {"qwen2", true, kLlamaTensors},
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

const TensorName& tensor_name(const Architecture& architecture, Field field) {
  for (const TensorName& tensor : architecture.tensors) {
    if (tensor.field == field) return tensor;
  }
  internal::check_failed(__FILE__, __LINE__, "every field is in the table", architecture.name);
}

std::string layer_tensor_name(const TensorName& name, int64_t layer) {
  std::string text = name.name;
  const size_t star = text.find('*');
  if (star != std::string::npos) text.replace(star, 1, std::to_string(layer));
  return text;
}

}  // namespace spillway

// See quant_mix.h. The table is at the end of the anonymous namespace: one function a kind of
// tensor, which reads like the rule that people know.
#include "runtime/model/quant_mix.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <iterator>

#include "kernels/core/any_case.h"
#include "kernels/core/error.h"

namespace spillway {
namespace {

using enum QuantType;

constexpr QuantMix kMixes[] = {
    {"F32", kF32, 0, "32 bits a weight"},
    {"BF16", kBF16, 32, "16 bits, the range of F32"},
    {"F16", kF16, 1, "16 bits"},
    {"Q8_0", kQ8_0, 7, "8.5 bits: no loss that is seen"},
    {"Q6_K", kQ6_K, 18, "6.6 bits: hardly any loss"},
    {"Q5_K_M", kQ5_K, 17, "5.7 bits"},
    {"Q5_K_S", kQ5_K, 16, "5.5 bits"},
    {"Q5_1", kQ5_1, 9, "6 bits, blocks of 32"},
    {"Q5_0", kQ5_0, 8, "5.5 bits, blocks of 32"},
    {"Q4_K_M", kQ4_K, 15, "4.8 bits: the usual choice"},
    {"Q4_K_S", kQ4_K, 14, "4.6 bits"},
    {"Q4_1", kQ4_1, 3, "5 bits, blocks of 32"},
    {"Q4_0", kQ4_0, 2, "4.5 bits, blocks of 32"},
    {"IQ4_NL", kIQ4_NL, 25, "4.5 bits, codes of a table"},
    {"IQ4_XS", kIQ4_XS, 30, "4.3 bits, codes of a table"},
    {"MXFP4", kMXFP4, 38, "4.3 bits: 4-bit floats; embeddings and output in Q8_0"},
    {"Q3_K_L", kQ3_K, 13, "4.3 bits"},
    {"Q3_K_M", kQ3_K, 12, "3.9 bits"},
    {"Q3_K_S", kQ3_K, 11, "3.5 bits"},
    {"Q2_K", kQ2_K, 10, "3.0 bits: much is lost"},
};

// Of layers, heads and experts: beyond it no model exists, and products would overflow.
constexpr int64_t kMaxCount = 1 << 20;

// What the rules ask of a model.
struct ModelFacts {
  std::string_view architecture;
  int64_t n_layers = 0;
  int64_t n_experts = 0;
  int64_t heads_per_kv = 1;
  bool is_70b = false;  // 80 layers whose value matrix is shared by several heads
  bool has_output = false;

  bool falcon() const { return architecture == "falcon"; }
};

// Where a tensor stands among those of its kind.
struct Place {
  int64_t index = 0;
  int64_t count = 0;
  // Both ends and every third between: the layers whose errors hurt most.
  bool more_bits() const {
    const int64_t eighth = count / 8;
    return index < eighth || index >= 7 * count / 8 || (index - eighth) % 3 == 2;
  }
};

bool contains(std::string_view name, std::string_view part) {
  return name.find(part) != std::string_view::npos;
}

bool is_value_matrix(std::string_view name) {
  return contains(name, "attn_v.weight") || contains(name, "attn_qkv.weight") ||
         contains(name, "attn_kv_b.weight");
}

// The number in "blk.12.ffn_down.weight"; -1 without one.
int64_t layer_of(std::string_view name) {
  constexpr std::string_view kPrefix = "blk.";
  int64_t layer = -1;
  if (!name.starts_with(kPrefix)) return layer;
  std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), layer);
  return layer;
}

// A count that may be one a layer (Gemma 3n, OpenELM): the greatest. 0 when the file has none.
int64_t count_of(const Gguf& gguf, std::string_view architecture, const char* suffix) {
  const std::string key = std::string(architecture) + suffix;
  const GgufValue* value = gguf.find(key);
  if (value == nullptr) return 0;
  const auto numbers = value->as_ints();
  if (numbers && numbers->empty()) return 0;
  const int64_t count =
      numbers ? *std::max_element(numbers->begin(), numbers->end()) : value->as_int().value_or(-1);
  if (count >= 0 && count <= kMaxCount) return count;
  throw Error(key + " is " + value->to_text() + ", must be 0 to " + std::to_string(kMaxCount),
              gguf.paths().front(), "the file is damaged or made by another tool");
}

ModelFacts facts_of(const Gguf& gguf) {
  ModelFacts facts;
  facts.architecture = gguf.string_or("general.architecture", "");
  facts.n_layers = count_of(gguf, facts.architecture, ".block_count");
  facts.n_experts = count_of(gguf, facts.architecture, ".expert_count");
  const int64_t heads = count_of(gguf, facts.architecture, ".attention.head_count");
  const int64_t kv_heads = count_of(gguf, facts.architecture, ".attention.head_count_kv");
  facts.heads_per_kv = kv_heads > 0 ? heads / kv_heads : 1;
  facts.is_70b = facts.n_layers == 80 && kv_heads > 0 && heads != kv_heads;
  facts.has_output = gguf.tensor("output.weight") != nullptr;
  return facts;
}

// Whether the tensor takes part at all: matrices of weights, but for small ones that steer.
bool is_quantised(const GgufTensor& tensor) {
  static constexpr std::string_view kKept[] = {"_norm.weight",
                                               "ffn_gate_inp.weight",
                                               "altup",
                                               "laurel",
                                               "per_layer_model_proj",
                                               "position_embd.weight",
                                               "token_types.weight",
                                               "ssm_conv1d",
                                               "shortconv.conv.weight",
                                               "time_mix_first.weight",
                                               "time_mix_w0.weight",
                                               "time_mix_w1.weight",
                                               "time_mix_w2.weight",
                                               "time_mix_v0.weight",
                                               "time_mix_v1.weight",
                                               "time_mix_v2.weight",
                                               "time_mix_a0.weight",
                                               "time_mix_a1.weight",
                                               "time_mix_a2.weight",
                                               "time_mix_g1.weight",
                                               "time_mix_g2.weight",
                                               "time_mix_decay_w1",
                                               "time_mix_decay_w2",
                                               "time_mix_lerp_fused.weight",
                                               "attn_rel_b.weight"};
  const std::string_view name = tensor.name;
  if (!name.ends_with("weight")) return false;
  const auto wide = [](int64_t dim) { return dim > 1; };
  if (std::none_of(tensor.dims.begin() + 1, tensor.dims.end(), wide)) return false;
  return std::none_of(std::begin(kKept), std::end(kKept),
                      [&](std::string_view kept) { return contains(name, kept); });
}

bool is(const QuantMix& mix, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), mix.name) != names.end();
}

// ---- the table ----------------------------------------------------------------------------------

// The output matrix; the embeddings where they stand for it.
QuantType output_type(const QuantMix& mix, const ModelFacts& model, int64_t cols) {
  if (mix.base == kMXFP4 || mix.base == kQ8_0 || model.falcon()) return kQ8_0;
  return cols % quant_info(mix.base).block_elements != 0 ? kQ8_0 : kQ6_K;
}

QuantType value_type(const QuantMix& mix, const ModelFacts& model, Place at) {
  QuantType type = mix.base;
  if (is(mix, {"Q2_K"})) type = model.heads_per_kv >= 4 ? kQ4_K : kQ3_K;
  if (is(mix, {"Q3_K_M"})) type = at.index < 2 ? kQ5_K : kQ4_K;
  if (is(mix, {"Q3_K_L"})) type = kQ5_K;
  if (is(mix, {"Q4_K_S"}) && at.index < 4) type = kQ5_K;
  if (is(mix, {"Q4_K_M", "Q5_K_M"}) && at.more_bits()) type = kQ6_K;
  if (is(mix, {"IQ4_NL", "IQ4_XS"}) && model.heads_per_kv >= 4) type = kQ5_K;
  // Eight heads read this matrix, so it is small for what it does.
  if (model.is_70b && (type == kQ3_K || type == kQ4_K)) type = kQ5_K;
  if (model.n_experts == 8) type = kQ8_0;
  return type;
}

QuantType down_type(const QuantMix& mix, const ModelFacts& model, Place at) {
  const bool first_eighth = at.index < at.count / 8;
  const bool first_sixteenth = at.index < at.count / 16;
  if (is(mix, {"Q2_K"})) return kQ3_K;
  if (is(mix, {"Q3_K_M"})) {
    if (first_sixteenth) return kQ5_K;
    return !model.falcon() || at.more_bits() ? kQ4_K : kQ3_K;
  }
  if (is(mix, {"Q3_K_L"})) return model.falcon() ? kQ4_K : kQ5_K;
  if (is(mix, {"Q4_K_S"}) && !model.falcon() && first_eighth) return kQ5_K;
  if (is(mix, {"Q4_K_M"})) {
    if (model.falcon()) return first_sixteenth ? kQ6_K : at.more_bits() ? kQ5_K : kQ4_K;
    return at.more_bits() ? kQ6_K : kQ4_K;
  }
  if (is(mix, {"Q5_K_M"}) && at.more_bits()) return kQ6_K;
  if (is(mix, {"IQ4_NL", "IQ4_XS"}) && first_eighth) return kQ5_K;
  return mix.base;
}

QuantType attention_output_type(const QuantMix& mix, const ModelFacts& model) {
  if (model.falcon()) return is(mix, {"Q3_K_L"}) ? kQ4_K : mix.base;
  if (model.n_experts == 8) {
    return is(mix, {"Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M", "IQ4_NL", "IQ4_XS"}) ? kQ5_K
                                                                                         : mix.base;
  }
  if (is(mix, {"Q2_K"})) return kQ3_K;
  if (is(mix, {"Q3_K_M"})) return kQ4_K;
  if (is(mix, {"Q3_K_L"})) return kQ5_K;
  return mix.base;
}

// For rows that are not whole blocks of 256.
QuantType narrow_type(QuantType type) {
  switch (type) {
    case kQ2_K:
    case kQ3_K:
      return kQ4_0;
    case kIQ4_XS:
      return kIQ4_NL;
    case kQ4_K:
      return kQ5_0;
    case kQ5_K:
      return kQ5_1;
    case kQ6_K:
      return kQ8_0;
    default:
      return type;
  }
}

// ---- end of the table ---------------------------------------------------------------------------

QuantType that_fits(QuantType type, int64_t cols) {
  if (cols % quant_info(type).block_elements != 0) type = narrow_type(type);
  return cols % quant_info(type).block_elements != 0 ? kF16 : type;
}

QuantType mixed_type(const GgufTensor& tensor, const QuantMix& mix, const QuantMixOptions& options,
                     const ModelFacts& model, Place at) {
  const std::string_view name = tensor.name;
  const bool embedding = name == "token_embd.weight";
  const bool output = name == "output.weight" || (embedding && !model.has_output);
  if (embedding && options.embedding_type) return *options.embedding_type;
  if (output && options.output_type) return *options.output_type;
  const bool plain = quant_info(mix.base).block_elements == 1;
  if (options.pure || plain) return mix.base;
  if (output) return output_type(mix, model, tensor.cols());
  if (embedding && mix.base == kMXFP4) return kQ8_0;
  if (is_value_matrix(name)) return value_type(mix, model, at);
  if (contains(name, "attn_k.weight") && model.n_experts == 8) return kQ8_0;
  if (contains(name, "ffn_down")) return down_type(mix, model, at);
  if (contains(name, "attn_output.weight")) return attention_output_type(mix, model);
  return mix.base;
}

// Layers of the model's value matrices, in order: the rules count them, and some models have
// layers without.
std::vector<int64_t> value_layers(const Gguf& gguf) {
  std::vector<int64_t> layers;
  for (const GgufTensor& tensor : gguf.tensors()) {
    if (is_value_matrix(tensor.name)) layers.push_back(layer_of(tensor.name));
  }
  std::sort(layers.begin(), layers.end());
  return layers;
}

Place place_of(const GgufTensor& tensor, const std::vector<int64_t>& value_at,
               const ModelFacts& model) {
  const int64_t layer = layer_of(tensor.name);
  if (!is_value_matrix(tensor.name)) return {layer, model.n_layers};
  const auto found = std::lower_bound(value_at.begin(), value_at.end(), layer);
  return {found - value_at.begin(), static_cast<int64_t>(value_at.size())};
}

}  // namespace

std::span<const QuantMix> quant_mixes() { return kMixes; }

const QuantMix* find_quant_mix(std::string_view name) {
  for (const QuantMix& mix : kMixes) {
    if (same_in_any_case(mix.name, name)) return &mix;
  }
  for (const std::string_view family : {"Q3_K", "Q4_K", "Q5_K"}) {
    if (same_in_any_case(family, name)) return find_quant_mix(std::string(family) + "_M");
  }
  return nullptr;
}

std::vector<QuantType> mixed_types(const Gguf& gguf, const QuantMix& mix,
                                   const QuantMixOptions& options) {
  const ModelFacts model = facts_of(gguf);
  const std::vector<int64_t> value_at = value_layers(gguf);
  std::vector<QuantType> types;
  for (const GgufTensor& tensor : gguf.tensors()) {
    if (!is_quantised(tensor)) {
      types.push_back(tensor.type);
      continue;
    }
    const Place at = place_of(tensor, value_at, model);
    types.push_back(that_fits(mixed_type(tensor, mix, options, model, at), tensor.cols()));
  }
  return types;
}

}  // namespace spillway

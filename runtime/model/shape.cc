// See shape.h.
#include "runtime/model/shape.h"

#include <span>
#include <vector>

#include "kernels/core/error.h"
#include "parallel/toml.h"
#include "runtime/io/gguf_writer.h"
#include "runtime/model/names.h"
#include "runtime/model/spec.h"

namespace spillway {
namespace {

constexpr int64_t kAlignment = 32;
// Beyond these no model exists, and products would overflow; spec.cc has tighter limits.
constexpr int64_t kMostNumber = 1 << 24;
constexpr int64_t kMostLayers = 1 << 12;

int64_t head_dim_of(const ModelShape& shape) {
  return shape.head_dim > 0 ? shape.head_dim : shape.dim / shape.n_heads;
}

GgufMetadataText metadata_of(const ModelShape& shape, const QuantMix& mix) {
  GgufMetadataText out;
  const auto key = [&](const char* suffix) { return shape.architecture + "." + suffix; };
  const auto put = [&](const char* suffix, int64_t value) {
    out.set_u32(key(suffix), static_cast<uint32_t>(value));
  };
  out.set_text("general.architecture", shape.architecture);
  out.set_text("general.name", shape.name);
  out.set_u32("general.file_type", mix.file_type);
  put("block_count", shape.n_layers);
  put("embedding_length", shape.dim);
  put("feed_forward_length", shape.ff_dim);
  put("context_length", shape.context_length);
  put("attention.head_count", shape.n_heads);
  put("attention.head_count_kv", shape.n_kv_heads);
  put("attention.key_length", head_dim_of(shape));
  put("attention.value_length", head_dim_of(shape));
  put("rope.dimension_count", head_dim_of(shape));
  out.set_f32(key("rope.freq_base"), static_cast<float>(shape.rope_base));
  out.set_f32(key("attention.layer_norm_rms_epsilon"), static_cast<float>(shape.norm_eps));
  if (shape.window > 0) put("attention.sliding_window", shape.window);
  return out;
}

// Columns first, as GGUF has them; a vector has one number.
std::vector<int64_t> dims_of(Field field, const ModelShape& shape) {
  const int64_t q_rows = shape.n_heads * head_dim_of(shape);
  const int64_t kv_rows = shape.n_kv_heads * head_dim_of(shape);
  switch (field) {
    case Field::kEmbedding:
    case Field::kOutput:
      return {shape.dim, shape.vocab_size};
    case Field::kQ:
      return {shape.dim, q_rows};
    case Field::kK:
    case Field::kV:
      return {shape.dim, kv_rows};
    case Field::kO:
      return {q_rows, shape.dim};
    case Field::kGate:
    case Field::kUp:
      return {shape.dim, shape.ff_dim};
    case Field::kDown:
      return {shape.ff_dim, shape.dim};
    case Field::kQBias:
      return {q_rows};
    case Field::kKBias:
    case Field::kVBias:
      return {kv_rows};
    case Field::kQNorm:
    case Field::kKNorm:
      return {head_dim_of(shape)};
    default:
      return {shape.dim};  // norms
  }
}

bool has(const TensorName& tensor, const ModelShape& shape) {
  switch (tensor.field) {
    case Field::kOutput:
      return !shape.tied_output;
    case Field::kQBias:
    case Field::kKBias:
    case Field::kVBias:
      return shape.qkv_bias;
    default:
      return tensor.required;
  }
}

std::vector<GgufTensorPlan> tensors_of(const ModelShape& shape, const Architecture& architecture) {
  std::vector<GgufTensorPlan> out;
  for (const TensorName& tensor : architecture.tensors) {
    if (!has(tensor, shape)) continue;
    const std::vector<int64_t> dims = dims_of(tensor.field, shape);
    const QuantType type = dims.size() == 1 ? QuantType::kF32 : QuantType::kF16;
    const bool layered = std::string_view(tensor.name).find('*') != std::string_view::npos;
    for (int64_t i = 0; i < (layered ? shape.n_layers : 1); ++i) {
      out.push_back({layer_tensor_name(tensor, i), dims, type});
    }
  }
  return out;
}

Gguf parse(const GgufMetadataText& metadata, const std::vector<GgufTensorPlan>& tensors,
           const std::string& name) {
  const std::string header = gguf_header(metadata, tensors, kAlignment);
  return Gguf::of_header(std::as_bytes(std::span(header.data(), header.size())), name);
}

void check(const TomlFields& fields, const ModelShape& shape) {
  if (find_architecture(shape.architecture) == nullptr) {
    fields.fail(
        "architecture \"" + shape.architecture + "\" is not one of " + supported_architectures(),
        "architecture");
  }
  const std::pair<const char*, int64_t> numbers[] = {
      {"layers", shape.n_layers},   {"dim", shape.dim},
      {"heads", shape.n_heads},     {"kv_heads", shape.n_kv_heads},
      {"head_dim", shape.head_dim}, {"ff", shape.ff_dim},
      {"vocab", shape.vocab_size},  {"context", shape.context_length},
      {"window", shape.window}};
  for (const auto& [key, value] : numbers) {
    if (value > kMostNumber) fields.fail(std::string(key) + " is larger than any model's", key);
  }
  if (shape.n_layers > kMostLayers) fields.fail("layers is larger than any model's", "layers");
  if (shape.n_heads * head_dim_of(shape) > kMostNumber) {
    fields.fail("heads x head_dim is larger than any model's", "heads");
  }
}

}  // namespace

ModelShape read_shape_file(const std::string& path) {
  constexpr TomlFields::Need kNeeded = TomlFields::kNeeded;
  const TomlTable root = read_toml(path);
  TomlFields fields(&root, path);
  ModelShape shape;
  fields.text("architecture", shape.architecture, kNeeded);
  fields.text("name", shape.name, kNeeded);
  fields.integer("layers", shape.n_layers, 1, kNeeded);
  fields.integer("dim", shape.dim, 1, kNeeded);
  fields.integer("heads", shape.n_heads, 1, kNeeded);
  fields.integer("kv_heads", shape.n_kv_heads, 1, kNeeded);
  fields.integer("head_dim", shape.head_dim, 1);
  fields.integer("ff", shape.ff_dim, 1, kNeeded);
  fields.integer("vocab", shape.vocab_size, 1, kNeeded);
  fields.integer("context", shape.context_length, 1, kNeeded);
  fields.integer("window", shape.window, 1);
  fields.number("rope_base", shape.rope_base);
  fields.number("norm_eps", shape.norm_eps);
  fields.flag("tied_output", shape.tied_output);
  fields.flag("qkv_bias", shape.qkv_bias);
  fields.finish();
  check(fields, shape);
  return shape;
}

ModelSpec shape_spec(const ModelShape& shape, const QuantMix& mix) {
  const Architecture* architecture = find_architecture(shape.architecture);
  if (architecture == nullptr) {
    throw Error("architecture " + shape.architecture + " is not one of " +
                supported_architectures());
  }
  const std::string name = shape.name + " " + mix.name;
  const GgufMetadataText metadata = metadata_of(shape, mix);
  std::vector<GgufTensorPlan> tensors = tensors_of(shape, *architecture);
  try {
    const std::vector<QuantType> types = mixed_types(parse(metadata, tensors, name), mix, {});
    for (size_t i = 0; i < tensors.size(); ++i) tensors[i].type = types[i];
    return read_model_spec(parse(metadata, tensors, name));
  } catch (const Error& error) {
    throw Error("no model can have this shape: " + error.message(), name, "look at its numbers");
  }
}

}  // namespace spillway

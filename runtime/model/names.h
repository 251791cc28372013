// The table of architectures: how a GGUF file names a tensor, which field of the model it is, and
// along which axis it is cut over the ranks of a stage. Adding an architecture starts here
// (docs/adding_a_model.md).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace spillway {

enum class Field {
  kEmbedding,
  kOutputNorm,
  kOutput,
  kRopeFreqs,
  kAttentionNorm,
  kQ,
  kK,
  kV,
  kO,
  kQBias,
  kKBias,
  kVBias,
  kOBias,
  kFeedForwardNorm,
  kGate,
  kUp,
  kDown,
  kGateBias,
  kUpBias,
  kDownBias,
};

enum class SplitAxis {
  kWhole,       // every rank of the stage holds it
  kVocabRows,   // rows by vocabulary
  kHeadRows,    // rows by query heads
  kKvHeadRows,  // rows by KV heads
  kHeadCols,    // columns by query heads: a partial sum
  kFfRows,      // rows by feed-forward width
  kFfCols,      // columns by feed-forward width: a partial sum
};

struct TensorName {
  Field field;
  const char* name;  // "blk.*.attn_q.weight": the star is the layer
  SplitAxis axis;
  bool required;
};

struct Architecture {
  const char* name;  // general.architecture, and the prefix of its keys
  bool rope_halves;  // which pairs of a head turn together
  std::span<const TensorName> tensors;
};

// nullptr when it is not in the table.
const Architecture* find_architecture(std::string_view name);
// "llama, qwen2": for errors.
std::string supported_architectures();

// The table's line of a field; every field has one in every architecture.
const TensorName& tensor_name(const Architecture& architecture, Field field);
// "blk.*.attn_q.weight", 7 -> "blk.7.attn_q.weight".
std::string layer_tensor_name(const TensorName& name, int64_t layer);

}  // namespace spillway

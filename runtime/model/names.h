// The table of architectures: how a GGUF file names a tensor, which field of the model it is, and
// along which axis it is cut over the ranks of a stage. Adding an architecture starts here
// (docs/adding_a_model.md).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "parallel/model_spec.h"

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
  kQNorm,
  kKNorm,
  kAttentionPostNorm,
  kFeedForwardPostNorm,
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

// What all models of an architecture have in common, so that no key says it.
struct Architecture {
  const char* name;  // general.architecture, and the prefix of its keys
  bool rope_halves;  // which pairs of a head turn together
  std::span<const TensorName> tensors;
  GateActivation activation = GateActivation::kSilu;
  bool embedding_by_width = false;  // embeddings are multiplied by sqrt(dim)
  // Sliding windows: n: a file must name a window, and every n-th layer is without one unless the
  // file has a pattern of its own. 0: an architecture without windows.
  int64_t window_period = 0;
  double window_rope_base = 0;  // of layers with a window, unless the file says; 0: as the others
  // Models of so many layers scale queries by 1 / sqrt(dim / heads), not 1 / sqrt(head_dim).
  int64_t query_by_width_layers = 0;
};

// nullptr when it is not in the table.
const Architecture* find_architecture(std::string_view name);
// "llama, qwen2": for errors.
std::string supported_architectures();

// The table's line of a field; nullptr when models of the architecture have no such tensor.
const TensorName* tensor_name(const Architecture& architecture, Field field);
// Whether a model of the architecture with so many layers may have a tensor of this name.
bool knows_tensor(const Architecture& architecture, int64_t n_layers, std::string_view name);
// "blk.*.attn_q.weight", 7 -> "blk.7.attn_q.weight".
std::string layer_tensor_name(const TensorName& name, int64_t layer);

}  // namespace spillway

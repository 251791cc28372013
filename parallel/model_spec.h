// ModelSpec: what the planner must know of a model: shapes and types of its matrices, no bytes of
// them. Made from GGUF metadata by runtime/model/spec.*, or from a shape alone.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernels/core/quant.h"

namespace spillway {

// y = W x: [rows, cols]; rows = 0: the model has no such matrix.
struct MatrixSpec {
  QuantType type = QuantType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  bool present() const { return rows > 0; }
};

struct LayerSpec {
  MatrixSpec q, k, v, o;      // q [n_heads*head_dim, dim], k, v [n_kv_heads*head_dim, dim]
  MatrixSpec gate, up, down;  // gate, up [ff_dim, dim], down [dim, ff_dim]
  bool q_bias = false, k_bias = false, v_bias = false, o_bias = false;
  bool gate_bias = false, up_bias = false, down_bias = false;
  bool q_norm = false, k_norm = false;  // RMS norms of every head, before RoPE
  bool attention_post_norm = false;     // of what a half adds to the residual stream
  bool feed_forward_post_norm = false;
  int64_t window = 0;  // tokens that a query sees, its own included; 0: all up to it
};

// What the feed-forward gate goes through.
enum class GateActivation { kSilu, kGelu };

enum class RopeScaling { kNone, kLinear, kYarn };
struct RopeSpec {
  bool halves = false;  // pairs (i, i+d/2) instead of (2i, 2i+1)
  int64_t n_rot = 0;    // values of a head that turn; even
  double base = 10000.0;
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1.0;              // linear and YaRN: positions are divided by it
  int64_t original_context = 0;     // YaRN: the context of the training
  double yarn_extrapolation = 1.0;  // YaRN's ext_factor, attn_factor, beta_fast, beta_slow
  double yarn_attention = 1.0;
  double yarn_beta_fast = 32.0;
  double yarn_beta_slow = 1.0;
  std::vector<float> frequency_divisors;  // Llama 3: rope_freqs, [n_rot/2] or empty
};

struct ModelSpec {
  std::string architecture;  // "llama"
  std::string name;          // general.name, for tables
  uint64_t header_hash = 0;  // Gguf::header_hash(): equal on all ranks, or stop
  int64_t file_bytes = 0;

  int64_t n_layers = 0;
  int64_t dim = 0;
  int64_t n_heads = 0;
  int64_t n_kv_heads = 0;  // divides n_heads
  int64_t head_dim = 0;
  int64_t ff_dim = 0;
  int64_t vocab_size = 0;
  int64_t context_length = 0;  // of the training
  double norm_eps = 1e-5;
  double embedding_scale = 1.0;  // the embedding's rows are multiplied by it
  double query_scale = 0.0;      // scores are scale * q.k; 0: 1 / sqrt(head_dim)
  GateActivation activation = GateActivation::kSilu;
  RopeSpec rope;
  std::optional<RopeSpec> window_rope;  // of layers with a window, when theirs differs

  std::vector<LayerSpec> layers;  // n_layers of them
  MatrixSpec embedding;           // [vocab_size, dim]
  MatrixSpec output;              // [vocab_size, dim]; rows = 0: tied to the embedding
  bool tied_output() const { return !output.present(); }
  int64_t heads_per_kv() const { return n_kv_heads > 0 ? n_heads / n_kv_heads : 1; }
};

}  // namespace spillway

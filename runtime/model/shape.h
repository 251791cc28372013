// A model's shape: what a model card says of it, without a file of weights. configs/models/ has
// well-known ones, docs/config.md explains the keys. Called by `plan`.
//   The spec is read from a GGUF header made in memory, with the types that quant_mix.h gives every
// tensor: it cannot differ from what the file itself, quantised here or by llama.cpp, would say.
// (But for the tokeniser, which such a header has not, and Llama 3's 256 bytes of RoPE divisors.)
#pragma once

#include <cstdint>
#include <string>

#include "parallel/model_spec.h"
#include "runtime/model/quant_mix.h"

namespace spillway {

struct ModelShape {
  std::string architecture;  // "llama": one of names.h
  std::string name;          // for tables
  int64_t n_layers = 0;
  int64_t dim = 0;
  int64_t n_heads = 0;
  int64_t n_kv_heads = 0;
  int64_t head_dim = 0;  // 0: dim / n_heads
  int64_t ff_dim = 0;
  int64_t vocab_size = 0;
  int64_t context_length = 0;
  int64_t window = 0;  // tokens that layers with a window see; 0: no such layers
  double rope_base = 10000.0;
  double norm_eps = 1e-5;
  bool tied_output = false;  // the embedding stands for the output matrix
  bool qkv_bias = false;
};

// Throws Error with file, line and key.
ModelShape read_shape_file(const std::string& path);

// Throws Error when the shape is none that the architecture can have.
ModelSpec shape_spec(const ModelShape& shape, const QuantMix& mix);

}  // namespace spillway

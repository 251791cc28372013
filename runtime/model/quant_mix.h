// QuantMix: which type every tensor of a model gets when it is quantised. The rules are llama.cpp's
// (its llama-quantize tool without an importance matrix), checked tensor by tensor against files
// that it made, so that a size and a quality known under a name are the same here.
// Called by quantize_file.cc; knows names and shapes, never data.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/io/gguf.h"

namespace spillway {

struct QuantMix {
  const char* name;    // "Q4_K_M"
  QuantType base;      // of most matrices
  uint32_t file_type;  // general.file_type
  const char* about;   // for --help and the list of types
};

// All mixes, in the order of their size.
std::span<const QuantMix> quant_mixes();
// "q4_k_m" → Q4_K_M; "Q4_K" is Q4_K_M, "Q3_K" and "Q5_K" likewise. nullptr when unknown.
const QuantMix* find_quant_mix(std::string_view name);

struct QuantMixOptions {
  bool pure = false;                        // every matrix in the mix's base type
  std::optional<QuantType> output_type;     // of output.weight, or of what stands for it
  std::optional<QuantType> embedding_type;  // of token_embd.weight
};

// A tensor's new type, in the order of gguf.tensors(). A row that is not a multiple of the type's
// block falls back to a type of blocks of 32, then to F16. Throws Error when metadata that the
// rules need is damaged.
std::vector<QuantType> mixed_types(const Gguf& gguf, const QuantMix& mix,
                                   const QuantMixOptions& options);

}  // namespace spillway

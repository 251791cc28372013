// A GGUF block taken apart: its codes in the order of the values, its small scales one a byte, its
// half floats. Between the file's block and the packed layout, and what dequantisation computes
// from. Called by pack.cc, dequant.cc and the quantisers; never in a product.
#pragma once

#include <cstdint>

#include "kernels/core/dispatch.h"
#include "kernels/core/half.h"

namespace spillway::cpu {

inline constexpr int64_t kMaxBlock = 256;
inline constexpr int64_t kMaxSubs = 16;

// What the type does not have stays 0. Meanings: the block structs in kernels/core/quant.h.
struct BlockParts {
  uint8_t codes[kMaxBlock];   // unsigned, before the offset or the table (Q8_0: + 128, grids: + 64)
  uint8_t sub[kMaxSubs];      // a sub-block's scale as it is stored (Q6_K: an int8; MXFP4: e)
  uint8_t sub_min[kMaxSubs];  // a sub-block's minimum
  uint16_t d;                 // f16
  uint16_t m;                 // f16: m or dmin
};

// The parts of a file's block.
void take_apart(const BlockQ4_0& block, BlockParts& out);
void take_apart(const BlockQ4_1& block, BlockParts& out);
void take_apart(const BlockQ5_0& block, BlockParts& out);
void take_apart(const BlockQ5_1& block, BlockParts& out);
void take_apart(const BlockQ8_0& block, BlockParts& out);
void take_apart(const BlockQ2_K& block, BlockParts& out);
void take_apart(const BlockQ3_K& block, BlockParts& out);
void take_apart(const BlockQ4_K& block, BlockParts& out);
void take_apart(const BlockQ5_K& block, BlockParts& out);
void take_apart(const BlockQ6_K& block, BlockParts& out);
void take_apart(const BlockIQ4_NL& block, BlockParts& out);
void take_apart(const BlockIQ4_XS& block, BlockParts& out);
void take_apart(const BlockMXFP4& block, BlockParts& out);
void take_apart(const BlockIQ2_XXS& block, BlockParts& out);
void take_apart(const BlockIQ2_XS& block, BlockParts& out);
void take_apart(const BlockIQ2_S& block, BlockParts& out);
void take_apart(const BlockIQ3_XXS& block, BlockParts& out);
void take_apart(const BlockIQ3_S& block, BlockParts& out);

// 2^(e - 128), also where it is subnormal; e = 255 is 2^127 like any other.
float half_power_of_two(uint8_t e);

// The factor of sub-block k's codes, and what is added to them (0 when the type has no minimum).
template <typename Traits>
float sub_scale(const BlockParts& parts, int64_t k) {
  if constexpr (Traits::kScales == Scales::kExponent) return half_power_of_two(parts.sub[0]);
  const float d = f16_to_f32(parts.d);
  if constexpr (Traits::kScales == Scales::kHalf) return d;
  if constexpr (Traits::kScales == Scales::kSixBit)
    return d * static_cast<float>(parts.sub[k] - 32);
  if constexpr (Traits::kScales == Scales::kOddNibble) {
    return d * static_cast<float>(2 * parts.sub[k] + 1) * Traits::kFactor;  // exact: 16 bits
  }
  if constexpr (Traits::kScales == Scales::kSignedByte) {
    return d * static_cast<float>(static_cast<int8_t>(parts.sub[k]));
  }
  return d * static_cast<float>(parts.sub[k]);
}
template <typename Traits>
float sub_minimum(const BlockParts& parts, int64_t k) {
  if constexpr (!Traits::kHasMin) return 0.0f;
  const float m = f16_to_f32(parts.m);
  if constexpr (Traits::kScales == Scales::kHalf) return m;
  return -(m * static_cast<float>(parts.sub_min[k]));
}

// The block's values: equal bit for bit to the reference dequantisers of the format.
template <typename Traits>
void block_values(const BlockParts& parts, float* out) {
  for (int64_t k = 0; k < Traits::kBlock / Traits::kSub; ++k) {
    const float scale = sub_scale<Traits>(parts, k);
    const float minimum = sub_minimum<Traits>(parts, k);
    for (int64_t i = k * Traits::kSub; i < (k + 1) * Traits::kSub; ++i) {
      int value = parts.codes[i];
      if constexpr (Traits::kTable) {
        value = Traits::kValues[value];
      } else {
        value -= Traits::kOffset;
      }
      out[i] = scale * static_cast<float>(value);
      if constexpr (Traits::kHasMin) out[i] += minimum;
    }
  }
}

}  // namespace spillway::cpu

// Codes of the grid types (IQ2, IQ3) brought into lanes: indices become magnitudes by gathers,
// signs are put to them. The layout is drawn in pack.h. Included by product_lanes.h only.
#pragma once

#include <cstdint>

#include "kernels/core/dispatch.h"
#include "kernels/core/iq_grids.h"
#include "kernels/cpu/quant_lanes.h"

namespace spillway::cpu::SPILLWAY_LANES {

template <QuantType Q>
inline const uint32_t* grid_words() {
  if constexpr (Q == QuantType::kIQ2_XXS) return kGridIq2Xxs.words;
  if constexpr (Q == QuantType::kIQ2_XS) return kGridIq2Xs.words;
  if constexpr (Q == QuantType::kIQ2_S) return kGridIq2S.words;
  if constexpr (Q == QuantType::kIQ3_XXS) return kGridIq3Xxs.words;
  return kGridIq3S.words;
}

// Four times 7 signs, one in each byte of a lane, and their parities as the eighth bits.
inline I32x16 with_parities(I32x16 sevens) {
  I32x16 folded = bit_xor(sevens, shift_right(sevens, 4));
  folded = bit_xor(folded, shift_right(folded, 2));
  folded = bit_xor(folded, shift_right(folded, 1));
  return bit_or(sevens, shift_left(bit_and(folded, splat_int(0x01010101)), 7));
}

// 32 columns of a group: what the eight quads are made of.
template <QuantType Q>
struct GridPiece {
  using Traits = QuantTraits<Q>;
  I32x16 index[2];
  I32x16 signs;  // bit c: column c
  I32x16 high;   // upper bits of indices

  void load(const PlanePointers& p, int64_t piece) {
    for (int v = 0; v < Traits::kLowBits; ++v) {
      index[v] = load_words(p.codes + (piece * Traits::kLowBits + v) * 64);
    }
    if constexpr (Q == QuantType::kIQ2_XS) {
      const I32x16 seven = splat_int(127);
      const auto at = [&](int v, int shift, int to) {
        return shift_left(bit_and(shift_right(index[v], shift), seven), to);
      };
      signs = with_parities(
          bit_or(bit_or(at(0, 9, 0), at(0, 25, 8)), bit_or(at(1, 9, 16), at(1, 25, 24))));
    } else if constexpr (Traits::kSharedSigns) {
      const I32x16 word = load_words(p.high + piece * 64);
      const auto at = [&](int j) {
        return bit_and(shift_left(word, j), splat_int(127 << (8 * j)));  // from 7j to 8j
      };
      signs = with_parities(bit_or(bit_or(at(0), at(1)), bit_or(at(2), at(3))));
    } else {
      signs = load_words(p.high + piece * 64);
      const int64_t b = piece / 8;
      high = load_u8(p.sub + (b * Traits::kSubBytes + piece % 8) * kRowGroup);
    }
  }

  // Columns 4q to 4q + 3.
  template <int q>
  Codes quad() const {
    return with_signs(gather(grid_words<Q>(), word<q>()), shift_right(signs, 4 * q));
  }

 private:
  template <int q>
  I32x16 word() const {
    if constexpr (Traits::kGrid == 4) {
      I32x16 i = bit_and(shift_right(index[q / 4], 8 * (q % 4)), splat_int(255));
      if constexpr (Q == QuantType::kIQ3_S) {
        i = bit_or(i, bit_and(shift_left(high, 8 - q), splat_int(256)));
      }
      return i;
    } else {
      constexpr int j = q / 2;
      I32x16 i;
      if constexpr (Q == QuantType::kIQ2_XS) {
        i = bit_and(shift_right(index[j / 2], 16 * (j % 2)), splat_int(511));
      } else {
        i = bit_and(shift_right(index[0], 8 * j), splat_int(255));
      }
      if constexpr (Q == QuantType::kIQ2_S) {
        i = bit_or(i, bit_and(shift_left(high, 8 - 2 * j), splat_int(3 << 8)));
      }
      return bit_or(shift_left(i, 1), splat_int(q % 2));
    }
  }
};

// Nothing, for the types whose codes are read directly.
struct NoGrid {};
template <bool kIsGrid, QuantType Q>
struct GridOf {
  using Type = NoGrid;
};
template <QuantType Q>
struct GridOf<true, Q> {
  using Type = GridPiece<Q>;
};

}  // namespace spillway::cpu::SPILLWAY_LANES

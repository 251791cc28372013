// How a warp of tile_strip.cuh reads a strip, 32 rows of weights, and multiplies: scales a unit
// (some pieces of 32 columns) at a time, codes a piece at a time.
//   Codes become bf16 in registers, a word of four of them two pairs: columns 4t, 4t + 1 take the
// places 2t, 2t + 1 of a k16 step, columns 4t + 2, 4t + 3 the places 2t + 8, 2t + 9; the input's
// fragment is then 8 bytes of a row as it lies. An unsigned byte c is, as the lower half of a
// bf16's bits, the number c * 2^-133, exactly, below the smallest normal number or not: one
// multiply-add of pairs makes c * scale + minimum of two codes, the scale having 2^133 on top.
//   Scales of a unit are taken apart once, a quarter by each of the four lanes that need them, and
// pass through shared memory as words of scale and minimum.
#pragma once

#include <cuda_bf16.h>

#include "kernels/cuda/dequant.cuh"
#include "kernels/cuda/tile.cuh"
#include "kernels/cuda/tile_plan.h"

namespace spillway::cuda {

__device__ __forceinline__ __nv_bfloat162 as_bf16(uint32_t bits) {
  __nv_bfloat162 v;
  __builtin_memcpy(&v, &bits, sizeof(v));
  return v;
}
__device__ __forceinline__ uint32_t as_bits(__nv_bfloat162 v) {
  uint32_t bits;
  __builtin_memcpy(&bits, &v, sizeof(bits));
  return bits;
}

// Values are multiplied as value * 2^-kDown: scales have 133 - kDown binary places on top, which
// must not overflow. An f16 scale times a sub-scale is below 2^24; exponents go up to 2^127, and
// those above 2^60 become infinite here.
template <typename T>
inline constexpr int kDown = T::kScales == Scales::kExponent ? 64 : 32;
__host__ __device__ constexpr float binary_power(int n) {
  float out = 1.0f;
  for (; n > 0; --n) out *= 2.0f;
  return out;
}

template <QuantType Q, int NT>
struct StripShape {
  using T = QuantTraits<Q>;
  static constexpr int kColumns = 8 * NT;  // rows of input
  static constexpr int kUnit = unit_pieces(NT);
  static constexpr int kMine = kUnit / 4;  // pieces whose scales a lane takes apart
  static constexpr int kPieceBytes = strip_piece_bytes(NT);
  static constexpr int kUnitBytes = kUnit * kPieceBytes;
  // Pieces of weights on their way to a warp: as many as some 32 registers hold.
  static constexpr int kLowRegisters = T::kGrid != 0      ? 4 * T::kLowBits
                                       : T::kLowBits == 8 ? 8
                                       : T::kLowBits == 4 ? 4
                                                          : 8;
  static constexpr int kRegisters = kLowRegisters + 4 * T::kHighBits;
  static constexpr int kAhead = kRegisters <= 4 ? kUnit : kRegisters <= 8 ? 4 : 2;
  // All units are whole where blocks are units.
  static constexpr bool kWhole = T::kBlock % (kUnit * kPiece) == 0;
};

// ---- Weights -----------------------------------------------------------------------------------

// Unsigned codes: what tile_quads gives signed is made so by adding 128.
template <typename T>
inline constexpr bool kSignedQuads = T::kTable || T::kGrid != 0 || T::kLowBits == 8;
template <typename T>
inline constexpr float kCodeOffset = kSignedQuads<T> ? 128.0f : static_cast<float>(T::kOffset);
template <typename T>
inline constexpr bool kUpperIndices = T::kGrid != 0 && T::kHighBits == 1 && T::kSubBytes > 0;

// A piece on its way.
template <typename T>
struct StripPiece {
  Codes<T> codes;
  uint32_t upper;  // grids: the upper bits of indices
};
template <QuantType Q>
__device__ __forceinline__ void load_strip_piece(const std::byte* group, const Planes& planes,
                                                 int piece, int row4, int t,
                                                 StripPiece<QuantTraits<Q>>& out) {
  using T = QuantTraits<Q>;
  load_tile_codes<Q>(group, planes, piece, row4, t, out.codes);
  if constexpr (kUpperIndices<T>) {
    out.upper = load_word(group + planes.sub + piece / 8 * static_cast<int>(T::kSubBytes * 16) +
                          16 * (piece % 8) + row4 * 4);
  }
}

// Four rows' scales of a piece as words of two bf16, scale and minimum, by sub-block.
template <typename T>
__device__ __forceinline__ void scale_words(const PieceScales<T>& scales,
                                            uint4 (&out)[Form<T>::kSubs]) {
  constexpr float kUp = binary_power(133 - kDown<T>);
  constexpr float kLess = 1.0f / binary_power(kDown<T>);
  uint32_t words[Form<T>::kSubs][4];
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    const float factor = row_factor<T>(scales, r) * kUp;
    const float minimum = row_minimum<T>(scales, r) * kLess;
#pragma unroll
    for (int i = 0; i < Form<T>::kSubs; ++i) {
      float scale = factor;
      float add = minimum;
      if constexpr (Form<T>::kScaled) scale *= static_cast<float>(sub_factor<T>(scales, i, r));
      if constexpr (T::kHasMin && Form<T>::kScaled) {
        add *= static_cast<float>(byte_of(scales.min[i], r));
      }
      if constexpr (kCodeOffset<T> != 0.0f) {
        // The minimum is to be a multiple of the scale as it is after rounding.
        add = __bfloat162float(__float2bfloat16_rn(scale)) * (-kCodeOffset<T> * kLess / kUp);
      }
      words[i][r] = bf16_pair(scale, add);
    }
  }
#pragma unroll
  for (int i = 0; i < Form<T>::kSubs; ++i) {
    out[i] = make_uint4(words[i][0], words[i][1], words[i][2], words[i][3]);
  }
}

// The scales of lane t's share of a unit, as they lie.
template <QuantType Q, int NT>
struct UnitScales {
  RawScales<QuantTraits<Q>> pieces[StripShape<Q, NT>::kMine];
  uint4 signs[StripShape<Q, NT>::kMine];  // grids whose scales are beside them
};
template <QuantType Q, int NT>
__device__ __forceinline__ void load_unit_scales(const std::byte* group, const Planes& planes,
                                                 int n_pieces, int unit, int row4, int t,
                                                 UnitScales<Q, NT>& out) {
  using T = QuantTraits<Q>;
  using S = StripShape<Q, NT>;
#pragma unroll
  for (int i = 0; i < S::kMine; ++i) {
    const int piece = unit * S::kUnit + t * S::kMine + i;
    if (!S::kWhole && piece >= n_pieces) return;
    load_raw_scales<T>(group, planes, piece, row4, out.pieces[i]);
    if constexpr (T::kGrid != 0 && T::kSubBytes == 0) {
      out.signs[i] = load_stream(group + planes.high + piece * (T::kHighBits * 64) + row4 * 16);
    }
  }
}
// words: of a warp, [piece][sub-block][32 rows].
template <QuantType Q, int NT>
__device__ __forceinline__ void put_unit_scales(const UnitScales<Q, NT>& scales, int unit,
                                                uint32_t* words, int g, int t) {
  using T = QuantTraits<Q>;
  using S = StripShape<Q, NT>;
  constexpr bool kShared = S::kWhole && Form<T>::kBlockPieces >= S::kUnit;  // a unit is in a block
#pragma unroll
  for (int i = 0; i < S::kMine; ++i) {
    PieceScales<T> apart;
    take_apart<T>(scales.pieces[i],
                  static_cast<unsigned>(unit * S::kUnit + t * S::kMine + i) % Form<T>::kBlockPieces,
                  apart);
    if constexpr (T::kGrid != 0 && T::kSubBytes == 0) {
      Codes<T> codes;
      codes.high.v[0] = scales.signs[i];
      sign_scales<T>(codes, apart);
    }
    if (kShared) {
      apart.d = scales.pieces[0].d;
      apart.m = scales.pieces[0].m;
    }
    uint4 four[Form<T>::kSubs];
    scale_words<T>(apart, four);
#pragma unroll
    for (int j = 0; j < Form<T>::kSubs; ++j) {
      const int at = ((t * S::kMine + i) * Form<T>::kSubs + j) * 32 + 4 * g;
      *reinterpret_cast<uint4*>(words + at) = four[j];
    }
  }
}

// ---- One piece ---------------------------------------------------------------------------------

__device__ __forceinline__ void add_mma(float (&d)[4], const uint32_t (&a)[4], uint2 b) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b.x), "r"(b.y));
}

// Four unsigned codes, a word, as two pairs of values.
__device__ __forceinline__ void scaled_pairs(uint32_t codes, uint32_t scale_and_minimum,
                                             uint32_t& first, uint32_t& second) {
  const __nv_bfloat162 both = as_bf16(scale_and_minimum);
  const __nv_bfloat162 scale = __low2bfloat162(both);
  const __nv_bfloat162 minimum = __high2bfloat162(both);
  first = as_bits(__hfma2(as_bf16(__byte_perm(codes, 0, 0x4140)), scale, minimum));
  second = as_bits(__hfma2(as_bf16(__byte_perm(codes, 0, 0x4342)), scale, minimum));
}

// words: the piece's scales from the lane's four rows on; x: the piece's input from the lane's
// column on, its first and its second k16 step.
template <QuantType Q, int NT>
__device__ __forceinline__ void strip_piece(const StripPiece<QuantTraits<Q>>& piece,
                                            const uint32_t* words, const uint32_t* grid,
                                            const unsigned char* x0, const unsigned char* x1, int t,
                                            float (&acc)[2][NT][4]) {
  using T = QuantTraits<Q>;
  const uint4 near_words = *reinterpret_cast<const uint4*>(words);
  uint4 far_words = near_words;
  if constexpr (Form<T>::kTwoSubs) far_words = *reinterpret_cast<const uint4*>(words + 32);
  PieceScales<T> upper;
  if constexpr (kUpperIndices<T>) upper.upper = piece.upper;
  uint32_t a[2][2][4];  // [tile][k step]: rows g and g + 8 of tile i are the lane's 2i and 2i + 1
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    uint32_t near;
    uint32_t far;
    tile_quads<Q, false>(piece.codes, upper, grid, r, t, near, far);
    if constexpr (kSignedQuads<T>) {
      near ^= 0x80808080u;
      far ^= 0x80808080u;
    }
    scaled_pairs(near, word_of(near_words, r), a[r / 2][0][r % 2], a[r / 2][0][r % 2 + 2]);
    scaled_pairs(far, word_of(far_words, r), a[r / 2][1][r % 2], a[r / 2][1][r % 2 + 2]);
  }
#pragma unroll
  for (int nt = 0; nt < NT; ++nt) {
    const uint2 b0 = *reinterpret_cast<const uint2*>(x0 + nt * (8 * 64));
    const uint2 b1 = *reinterpret_cast<const uint2*>(x1 + nt * (8 * 64));
    add_mma(acc[0][nt], a[0][0], b0);
    add_mma(acc[1][nt], a[1][0], b0);
    add_mma(acc[0][nt], a[0][1], b1);
    add_mma(acc[1][nt], a[1][1], b1);
  }
}

}  // namespace spillway::cuda

// How a warp of tile_strip.cuh reads a strip, 32 rows of weights, and multiplies: scales a unit
// (some pieces of 32 columns) at a time, codes a piece at a time.
//   Codes become bf16 in registers, a word of four of them two pairs: columns 4t, 4t + 1 take the
// places 2t, 2t + 1 of a k16 step, columns 4t + 2, 4t + 3 the places 2t + 8, 2t + 9; the input's
// fragment is then 8 bytes of a row as it lies. An unsigned byte c is, as the lower half of a
// bf16's bits, the number c * 2^-133, exactly, below the smallest normal number or not: one
// multiply-add of pairs makes c * scale + minimum of two codes, the scale having 2^133 on top.
//   Codes come through a ring in shared memory, some 4 KiB a warp, which no register waits for: the
// compiler gathers loads to registers behind the products of a unit, where their way from memory is
// waited for in full.
//   Scales of a unit are taken apart once, a quarter by each of the four lanes that need them, and
// pass through shared memory as words of scale and minimum.
#pragma once

#include <cuda_bf16.h>

#include "kernels/cuda/tile.cuh"
#include "kernels/cuda/tile_bf16.cuh"
#include "kernels/cuda/tile_plan.h"

namespace spillway::cuda {

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

template <typename T>
inline constexpr bool kUpperIndices = T::kGrid != 0 && T::kHighBits == 1 && T::kSubBytes > 0;

// A strip's codes of one piece in the ring: vectors of 16 bytes that each lane has for its own,
// [vector][lane]; those that four lanes share, [vector][eight times four rows]; the upper bits of
// indices, 16 bytes a group.
template <typename T>
struct RingPiece {
  static constexpr int kOwn = T::kGrid != 0 ? 0 : T::kLowBits / 4;
  static constexpr int kLow = kOwn == 0 ? T::kLowBits : 0;
  static constexpr int kHigh = T::kHighBits;
  static constexpr bool kShared = kLow + kHigh > 0;
  static constexpr int kLowAt = 512 * kOwn;
  static constexpr int kHighAt = kLowAt + 128 * kLow;
  static constexpr int kUpperAt = kHighAt + 128 * kHigh;
  static constexpr int kBytes = kUpperAt + (kUpperIndices<T> ? 32 : 0);
};

template <QuantType Q, int NT>
struct StripShape {
  using T = QuantTraits<Q>;
  static constexpr int kColumns = 8 * NT;  // rows of input
  static constexpr int kUnit = unit_pieces(NT);
  static constexpr int kMine = kUnit / 4;  // pieces whose scales a lane takes apart
  static constexpr int kRowBytes = strip_row_bytes(NT);
  static constexpr int kUnitBytes = kColumns * kRowBytes;
  // Pieces of weights on their way to a warp, those that one wait is for, and such groups.
  static constexpr int kAhead = RingPiece<T>::kBytes > 512 ? 4 : kUnit;
  static constexpr int kStep = kAhead == 8 ? 2 : 1;
  static constexpr int kGroups = kAhead / kStep;
  static constexpr int kRingBytes = kAhead * RingPiece<T>::kBytes;
  static_assert(kRingBytes <= kMostRingBytes && kUnit % kAhead == 0);
  // All units are whole where blocks are units.
  static constexpr bool kWhole = T::kBlock % (kUnit * kPiece) == 0;
};

// ---- Weights -----------------------------------------------------------------------------------

// Unsigned codes: what tile_quads gives signed is made so by adding 128.
template <typename T>
inline constexpr bool kSignedQuads = T::kTable || T::kGrid != 0 || T::kLowBits == 8;
template <typename T>
inline constexpr float kCodeOffset = kSignedQuads<T> ? 128.0f : static_cast<float>(T::kOffset);

// A piece as a lane multiplies it.
template <typename T>
struct StripPiece {
  Codes<T> codes;
  uint32_t upper;  // grids: the upper bits of indices
};

__device__ __forceinline__ void copy_weights(void* to, const std::byte* from) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(address), "l"(from)
               : "memory");
}
template <int kLeft>
__device__ __forceinline__ void wait_weights() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
}

__device__ __forceinline__ void fetch_to_l2(const std::byte* from, unsigned bytes) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes) : "memory");
#endif
}
// Asks all that pieces first to end of a group are made of into L2, by one lane. first: of a block.
template <QuantType Q>
__device__ __forceinline__ void fetch_pieces(const std::byte* group, const Planes& planes,
                                             unsigned first, unsigned end) {
  using T = QuantTraits<Q>;
  constexpr unsigned kPieces = Form<T>::kBlockPieces;
  const unsigned n = end - first;
  const unsigned block = first / kPieces;
  const unsigned n_blocks = (n + kPieces - 1) / kPieces;
  const auto fetch = [&](uint32_t plane, unsigned at, unsigned of_each, unsigned count) {
    if (of_each > 0) fetch_to_l2(group + plane + at * of_each, count * of_each);
  };
  fetch(planes.codes, first, T::kLowBits * 64, n);
  fetch(planes.high, first, T::kHighBits * 64, n);
  fetch(planes.sub, block, static_cast<unsigned>(T::kSubBytes * 16), n_blocks);
  if (T::kScales != Scales::kExponent) fetch(planes.scales, block, 32, n_blocks);
  if (T::kHasMin) fetch(planes.mins, block, 32, n_blocks);
}

// A lane's part in a warp's ring: what it copies there and what it reads.
template <QuantType Q>
struct StripRing {
  using T = QuantTraits<Q>;
  using R = RingPiece<T>;
  unsigned char* ring;
  int lane;
  // Of piece 0, where the lane copies such vectors.
  const std::byte* own;
  const std::byte* low;
  const std::byte* high;
  const std::byte* upper;

  // first, second: the strip's groups.
  __device__ __forceinline__ StripRing(unsigned char* warps_ring, const Planes& planes,
                                       const std::byte* first, const std::byte* second)
      : ring(warps_ring), lane(static_cast<int>(threadIdx.x)) {
    const auto half = [&](int i) { return i == 0 ? first : second; };
    own = half(lane / 16) + planes.codes + 64 * (lane % 4) + 16 * (lane / 4 % 4);
    const std::byte* shared = half(lane / 4 % 2) + 64 * (lane / 8) + 16 * (lane % 4);
    low = shared + planes.codes;
    high = shared + planes.high;
    upper = half(lane % 2) + planes.sub;
  }

  __device__ __forceinline__ void ask(int piece, int slot) const {
    unsigned char* to = ring + slot * R::kBytes + 16 * lane;
    const auto at = static_cast<unsigned>(piece);
    if constexpr (R::kOwn > 0) {
#pragma unroll
      for (int i = 0; i < R::kOwn; ++i) {
        copy_weights(to + 512 * i, own + at * (T::kLowBits * 64) + 256 * i);
      }
    }
    if constexpr (R::kLow > 0) {
      if (lane < 8 * R::kLow) copy_weights(to + R::kLowAt, low + at * (T::kLowBits * 64));
    }
    if constexpr (R::kHigh > 0) {
      if (lane < 8 * R::kHigh) copy_weights(to + R::kHighAt, high + at * (T::kHighBits * 64));
    }
    if constexpr (kUpperIndices<T>) {
      const unsigned from = at / 8 * static_cast<unsigned>(T::kSubBytes * 16) + 16 * (at % 8);
      if (lane < 2) copy_weights(to + R::kUpperAt, upper + from);
    }
  }

  __device__ __forceinline__ void read(int slot, StripPiece<T>& out) const {
    const unsigned char* from = ring + slot * R::kBytes;
    const unsigned char* shared = from + 16 * (lane / 4);
    const auto vector = [](const unsigned char* at) { return *reinterpret_cast<const uint4*>(at); };
    if constexpr (R::kOwn > 0) {
#pragma unroll
      for (int i = 0; i < R::kOwn; ++i) out.codes.low.v[4 * i] = vector(from + 512 * i + 16 * lane);
    }
    if constexpr (R::kLow > 0) {
#pragma unroll
      for (int i = 0; i < R::kLow; ++i) out.codes.low.v[i] = vector(shared + R::kLowAt + 128 * i);
    }
    if constexpr (R::kHigh > 0) {
#pragma unroll
      for (int i = 0; i < R::kHigh; ++i)
        out.codes.high.v[i] = vector(shared + R::kHighAt + 128 * i);
    }
    if constexpr (kUpperIndices<T>) {
      out.upper = *reinterpret_cast<const uint32_t*>(from + R::kUpperAt + 4 * (lane / 4));
    }
  }
};

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

// words: the piece's scales from the lane's four rows on; x: the piece's input from the lane's row
// and columns on.
template <QuantType Q, int NT>
__device__ __forceinline__ void strip_piece(const StripPiece<QuantTraits<Q>>& piece,
                                            const uint32_t* words, const uint32_t* grid,
                                            const unsigned char* x, int t, float (&acc)[2][NT][4]) {
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
    const unsigned char* row = x + nt * (8 * strip_row_bytes(NT));
    const uint2 b0 = *reinterpret_cast<const uint2*>(row);
    const uint2 b1 = *reinterpret_cast<const uint2*>(row + 32);
    add_mma(acc[0][nt], a[0][0], b0);
    add_mma(acc[1][nt], a[1][0], b0);
    add_mma(acc[0][nt], a[0][1], b1);
    add_mma(acc[1][nt], a[1][1], b1);
  }
}

}  // namespace spillway::cuda

// The matrix products, written once over the sixteen lanes of lanes.h; included by
// product_<isa>.cc only. Lane = weight row. The layout is drawn in pack.h.
//
// Quantised types, for every 32 columns in turn:
//   dot  = codes . q8 - offset * sum                      int32, exact
//   y    = fma(float(dot), d_w * d_x, y)                  SumF32
//   y    = fma(m_w, d_x * sum, y)                         types with a minimum
// In blocks of 256 d_w is the block's f16 times the sub-block's small integer; where sub-blocks
// have 16 columns the integers are multiplied first: dot = s0 * dot0 + s1 * dot1, still exact.
// Floats, for every grain of 32 columns: two chains of fma (even and odd columns), their sum added
// to y. SumF64 forms the same contribution from zero in f32 and adds it to f64 lanes.
//
// The arithmetic of one output does not depend on the tile it is computed in: tiles of any
// number of activations and row groups give equal bits.
#pragma once

#include <cstdint>

#include "kernels/core/dispatch.h"
#include "kernels/cpu/grid_lanes.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/lanes.h"
#include "kernels/cpu/quant_lanes.h"

namespace spillway::cpu::SPILLWAY_LANES {

// While a block is worked on, the same block of the next row groups is asked for, into the second
// cache: every group begins in several planes at once, to which no stream of loads leads. Wide
// groups are asked for less far ahead, to leave room in that cache. EPYC (Zen 4), two threads, 1
// row, 2048 columns, against 4096 bytes ahead into the first cache, GB/s: Q4_0 30 to 52, Q4_K 25 to
// 67, Q5_K 28 to 34, Q6_K 28 to 36, Q3_K 23 to 42, Q2_K 20 to 43.
inline constexpr int64_t kMostAhead = 65536;
inline constexpr int64_t kFloatsAhead = 4096;

template <int64_t kBytes>
inline void prefetch(const void* p, int64_t ahead) {
  const char* at = static_cast<const char*>(p) + ahead;
#pragma GCC unroll 8
  for (int64_t i = 0; i < kBytes; i += 64) __builtin_prefetch(at + i, 0, 2);
}

template <QuantType Q>
inline void prefetch_scales(const PlanePointers& p, int64_t b, int64_t ahead) {
  using Traits = QuantTraits<Q>;
  constexpr int64_t kSubBytes = Traits::kSubBytes * kRowGroup;
  if constexpr (kSubBytes > 0) prefetch<kSubBytes>(p.sub + b * kSubBytes, ahead);
  if constexpr (Traits::kScales != Scales::kExponent) prefetch<1>(p.scales + b * 32, ahead);
  if constexpr (Traits::kHasMin) prefetch<1>(p.mins + b * 32, ahead);
}

// Running sums of sixteen rows. Both take a block's exact integer dot product as a float.
struct SumF32 {
  using Out = float;
  static constexpr int kPairTile = kFloatPairTile;
  F32x16 y = splat(0.0f);

  void block(F32x16 dot, F32x16 scale) { y = fma(dot, scale, y); }
  void block(F32x16 dot, F32x16 scale, F32x16 minimum, F32x16 scaled_sum) {
    y = fma(minimum, scaled_sum, fma(dot, scale, y));
  }
  void grain(F32x16 sum) { y = add(y, sum); }
  void put(float* out, int64_t n) const { store_n(out, y, n); }
};

struct SumF64 {
  using Out = double;
  static constexpr int kPairTile = kDoublePairTile;
  F64x16 y = zero_f64();

  void block(F32x16 dot, F32x16 scale) { y = add(y, mul(dot, scale)); }
  void block(F32x16 dot, F32x16 scale, F32x16 minimum, F32x16 scaled_sum) {
    y = add(y, fma(minimum, scaled_sum, mul(dot, scale)));
  }
  void grain(F32x16 sum) { y = add(y, sum); }
  void put(double* out, int64_t n) const { store_n(out, y, n); }
};

template <QuantType Q>
inline F32x16 load_weights(const std::byte* p) {
  if constexpr (Q == QuantType::kF32) {
    return load(reinterpret_cast<const float*>(p));
  } else if constexpr (Q == QuantType::kF16) {
    return load_f16(reinterpret_cast<const uint16_t*>(p));
  } else {
    static_assert(Q == QuantType::kBF16);
    return load_bf16(reinterpret_cast<const uint16_t*>(p));
  }
}

// N activation rows times one row group of plain floats.
template <QuantType Q, typename Sum, int N>
inline void float_tile(const ProductArgs& a, const std::byte* group, int64_t first, Sum* sums) {
  constexpr int64_t kBytes = kRowGroup * QuantTraits<Q>::kElementBytes;
  const float* x[N];
  for (int i = 0; i < N; ++i) x[i] = a.x + (first + i) * a.x_stride;
  for (int64_t begin = 0; begin < a.cols; begin += 32) {
    const int64_t end = a.cols - begin < 32 ? a.cols : begin + 32;
    F32x16 even[N], odd[N];
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) even[i] = odd[i] = splat(0.0f);
    int64_t k = begin;
    for (; k + 2 <= end; k += 2) {
      const F32x16 w0 = load_weights<Q>(group + k * kBytes);
      const F32x16 w1 = load_weights<Q>(group + (k + 1) * kBytes);
      prefetch<2 * kBytes>(group + k * kBytes, kFloatsAhead);
#pragma GCC unroll 8
      for (int i = 0; i < N; ++i) {
        even[i] = fma(w0, splat(x[i][k]), even[i]);
        odd[i] = fma(w1, splat(x[i][k + 1]), odd[i]);
      }
    }
    if (k < end) {
      const F32x16 w0 = load_weights<Q>(group + k * kBytes);
#pragma GCC unroll 8
      for (int i = 0; i < N; ++i) even[i] = fma(w0, splat(x[i][k]), even[i]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) sums[i].grain(add(even[i], odd[i]));
  }
}

template <bool kWide>
inline I32x16 dot_quad(I32x16 acc, Codes codes, Quad q) {
  if constexpr (kWide) return dot_wide(acc, codes, q);
  return dot_small(acc, codes, q);
}

// 32 columns of G row groups and N activations: what the steps below share.
template <QuantType Q, int G, int N>
struct ColumnTile {
  using Traits = QuantTraits<Q>;
  const uint8_t* codes[G];
  const uint8_t* high[G];
  typename GridOf<Traits::kGrid != 0, Q>::Type grid[G];
  const int8_t* q[N];
  I32x16 dots[G][N];

  // Columns [32 * piece, 32 * piece + 32) of the groups' planes and of the activations.
  void move_to(const ProductArgs& a, const PlanePointers (&planes)[G], int64_t first,
               int64_t piece) {
    constexpr int64_t kLow = 64 * Traits::kLowBits;
    const int64_t groups_bytes = G * a.layout.bytes;
#pragma GCC unroll 2
    for (int g = 0; g < G; ++g) {
      codes[g] = planes[g].codes + piece * kLow;
      high[g] = planes[g].high + piece * 64 * Traits::kHighBits;
      prefetch<kLow>(codes[g], groups_bytes < kMostAhead ? groups_bytes : kMostAhead);
      if constexpr (Traits::kHighBits > 0) {
        prefetch<64 * Traits::kHighBits>(high[g], groups_bytes);
      }
      if constexpr (Traits::kGrid != 0) grid[g].load(planes[g], piece);
    }
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) q[i] = a.q8 + (first + i) * a.q8_stride + 32 * piece;
  }

  // The offset of the codes, taken off beforehand: sums are the activations' sums of codes.
  void start(const int32_t (&sums)[N]) {
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) {
      const I32x16 from = splat_int(-Traits::kOffset * sums[i]);
#pragma GCC unroll 2
      for (int g = 0; g < G; ++g) dots[g][i] = from;
    }
  }

  template <int quad>
  void multiply() {
    constexpr bool kWide = Traits::kBits == 8 || (Traits::kTable && Traits::kOffset > 64);
    Codes w[G];
#pragma GCC unroll 2
    for (int g = 0; g < G; ++g) {
      if constexpr (Traits::kGrid != 0) {
        w[g] = grid[g].template quad<quad>();
      } else {
        w[g] = load_quad_codes<Q, quad>(codes[g], high[g]);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) {
      const Quad x = load_quad(q[i] + 4 * quad);
#pragma GCC unroll 2
      for (int g = 0; g < G; ++g) dots[g][i] = dot_quad<kWide>(dots[g][i], w[g], x);
    }
  }
};

// What N activation rows say of 32 columns: scales, and sums of codes of both halves.
template <int N>
struct PieceInputs {
  float scale[N];
  int32_t low[N];
  int32_t high[N];

  PieceInputs(const ProductArgs& a, int64_t first, int64_t piece) {
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) {
      scale[i] = a.scale[(first + i) * a.scale_stride + piece];
      low[i] = a.sum[(first + i) * a.sum_stride + 2 * piece];
      high[i] = a.sum[(first + i) * a.sum_stride + 2 * piece + 1];
    }
  }
};

// 32 columns that share a scale: sub-block k of the block.
template <QuantType Q, typename Sum, int G, int N>
inline void add_piece(ColumnTile<Q, G, N>& tile, PieceInputs<N> x,
                      const FloatScales<Q> (&scales)[G], int k, Sum (&sums)[G][N]) {
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) x.low[i] += x.high[i];
  tile.start(x.low);
  tile.template multiply<0>();
  tile.template multiply<4>();
  tile.template multiply<1>();
  tile.template multiply<5>();
  tile.template multiply<2>();
  tile.template multiply<6>();
  tile.template multiply<3>();
  tile.template multiply<7>();
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) {
    const F32x16 x_scale = splat(x.scale[i]);
    const F32x16 scaled_sum = splat(x.scale[i] * static_cast<float>(x.low[i]));
#pragma GCC unroll 2
    for (int g = 0; g < G; ++g) {
      const F32x16 dot = to_float(tile.dots[g][i]);
      const F32x16 scale = mul(scales[g].scale[k], x_scale);
      if constexpr (QuantTraits<Q>::kHasMin) {
        sums[g][i].block(dot, scale, scales[g].minimum[k], scaled_sum);
      } else {
        sums[g][i].block(dot, scale);
      }
    }
  }
}

// 32 columns of two scales: sub-blocks 2k and 2k + 1 of the block.
template <QuantType Q, typename Sum, int G, int N>
inline void add_piece(ColumnTile<Q, G, N>& tile, const PieceInputs<N>& x,
                      const IntScales<Q> (&scales)[G], int k, Sum (&sums)[G][N]) {
  I32x16 total[G][N];
  tile.start(x.low);
  tile.template multiply<0>();
  tile.template multiply<1>();
  tile.template multiply<2>();
  tile.template multiply<3>();
#pragma GCC unroll 2
  for (int g = 0; g < G; ++g) {
    const I32x16 scale = scales[g].scale(2 * k);
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) total[g][i] = mul(tile.dots[g][i], scale);
  }
  tile.start(x.high);
  tile.template multiply<4>();
  tile.template multiply<5>();
  tile.template multiply<6>();
  tile.template multiply<7>();
#pragma GCC unroll 2
  for (int g = 0; g < G; ++g) {
    const I32x16 scale = scales[g].scale(2 * k + 1);
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) {
      const F32x16 dot = to_float(add(total[g][i], mul(tile.dots[g][i], scale)));
      const F32x16 x_scale = splat(x.scale[i]);
      if constexpr (QuantTraits<Q>::kHasMin) {
        const I32x16 minimums = add(mul(scales[g].minimum(2 * k), splat_int(x.low[i])),
                                    mul(scales[g].minimum(2 * k + 1), splat_int(x.high[i])));
        sums[g][i].block(dot, mul(scales[g].d, x_scale), mul(scales[g].minus_m, x_scale),
                         to_float(minimums));
      } else {
        sums[g][i].block(dot, mul(scales[g].d, x_scale));
      }
    }
  }
}

template <bool kSmallSubs, QuantType Q>
struct ScalesOf {
  using Type = FloatScales<Q>;
};
template <QuantType Q>
struct ScalesOf<true, Q> {
  using Type = IntScales<Q>;
};

// N activation rows times G row groups of a quantised type.
template <QuantType Q, typename Sum, int G, int N>
inline void quant_tile(const ProductArgs& a, const std::byte* group, int64_t first,
                       Sum (&sums)[G][N]) {
  using Traits = QuantTraits<Q>;
  static_assert(Traits::kSub == 16 || Traits::kSub == 32);
  constexpr int64_t kPieces = Traits::kBlock / 32;
  PlanePointers planes[G];
#pragma GCC unroll 2
  for (int g = 0; g < G; ++g) planes[g] = PlanePointers(group + g * a.layout.bytes, a.layout);
  ColumnTile<Q, G, N> tile;
  typename ScalesOf<Traits::kSub == 16, Q>::Type scales[G];
  for (int64_t b = 0; b < a.cols / Traits::kBlock; ++b) {
#pragma GCC unroll 2
    for (int g = 0; g < G; ++g) {
      scales[g].load(planes[g], b);
      prefetch_scales<Q>(planes[g], b, G * a.layout.bytes);
    }
    for (int k = 0; k < kPieces; ++k) {
      const int64_t piece = b * kPieces + k;
      tile.move_to(a, planes, first, piece);
      add_piece<Q>(tile, PieceInputs<N>(a, first, piece), scales, k, sums);
    }
  }
}

// G row groups times N activation rows, into the output.
template <QuantType Q, typename Sum, int G, int N>
void run_tile(const ProductArgs& a, int64_t group, int64_t first) {
  Sum sums[G][N];
  const std::byte* weights = a.weights + group * a.layout.bytes;
  if constexpr (QuantTraits<Q>::kBits == 0) {
    static_assert(G == 1);
    float_tile<Q, Sum, N>(a, weights, first, sums[0]);
  } else {
    quant_tile<Q, Sum, G, N>(a, weights, first, sums);
  }
#pragma GCC unroll 2
  for (int g = 0; g < G; ++g) {
    const int64_t row = (group + g) * kRowGroup;
    const int64_t n_rows = a.rows - row < kRowGroup ? a.rows - row : kRowGroup;
    auto* out = static_cast<typename Sum::Out*>(a.out) + first * a.out_stride + row;
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) sums[g][i].put(out + i * a.out_stride, n_rows);
  }
}

// All activations for G groups before the next: their weights stay in the first caches.
template <QuantType Q, typename Sum, int G>
void run_rows(const ProductArgs& a, int64_t group) {
  // Two sub-blocks at a time need more registers.
  constexpr int kPairTile = QuantTraits<Q>::kSub == 16 && Sum::kPairTile > 4 ? 4 : Sum::kPairTile;
  constexpr int kTile = G == 1 ? kProductTile : kPairTile;
  int64_t i = 0;
  for (; i + kTile <= a.n; i += kTile) run_tile<Q, Sum, G, kTile>(a, group, i);
  if constexpr (kTile > 4) {
    for (; i + 4 <= a.n; i += 4) run_tile<Q, Sum, G, 4>(a, group, i);
  }
  if constexpr (kTile > 2) {
    for (; i + 2 <= a.n; i += 2) run_tile<Q, Sum, G, 2>(a, group, i);
  }
  for (; i < a.n; ++i) run_tile<Q, Sum, G, 1>(a, group, i);
}

template <QuantType Q, typename Sum>
void run_groups(const ProductArgs& a) {
  int64_t group = a.group_begin;
  // Two groups share the loads of the activations, which bound large batches.
  if constexpr (QuantTraits<Q>::kBits != 0 && Sum::kPairTile > 0) {
    if (a.n > 1) {
      for (; group + 2 <= a.group_end; group += 2) run_rows<Q, Sum, 2>(a, group);
    }
  }
  for (; group < a.group_end; ++group) run_rows<Q, Sum, 1>(a, group);
}

template <typename Sum>
void run_product(QuantType type, const ProductArgs& args) {
  dispatch(type, [&args](auto tag) { run_groups<decltype(tag)::kType, Sum>(args); });
}

}  // namespace spillway::cpu::SPILLWAY_LANES

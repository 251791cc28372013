// The matrix products, written once over the sixteen lanes of lanes.h; included by
// product_<isa>.cc only. Lane = weight row. The layout is drawn in pack.h.
//
// Quantised types, for every sub-block of 32 or 16 columns in turn:
//   dot  = codes . q8 - offset * sum                      int32, exact
//   y    = fma(float(dot), d_w * d_x, y)                  SumF32
//   y    = fma(m_w, d_x * sum, y)                         types with a minimum
// d_w and m_w are the sub-block's own: in blocks of 256 the product of an f16 and a small integer.
// Floats, for every grain of 32 columns: two chains of fma (even and odd columns), their sum added
// to y. SumF64 forms the same contribution from zero in f32 and adds it to f64 lanes.
//
// The arithmetic of one output does not depend on the tile it is computed in: tiles of any
// number of activations and row groups give equal bits.
#pragma once

#include <cstdint>

#include "kernels/core/dispatch.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/lanes.h"
#include "kernels/cpu/quant_lanes.h"

namespace spillway::cpu::SPILLWAY_LANES {

// Weights this far ahead are asked for while a block is worked on. With many activations a tile the
// processor looks too few bytes ahead on its own to hide memory: 8 rows of Q8_0 went from 10 to
// 31 GB/s.
inline constexpr int64_t kPrefetchBytes = 4096;

template <int64_t kBytes>
inline void prefetch(const void* p) {
  const char* at = static_cast<const char*>(p) + kPrefetchBytes;
#pragma GCC unroll 8
  for (int64_t i = 0; i < kBytes; i += 64) __builtin_prefetch(at + i);
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
      prefetch<2 * kBytes>(group + k * kBytes);
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
  const int8_t* q[N];
  I32x16 dots[G][N];

  // Columns [32 * piece, 32 * piece + 32) of the groups' planes and of the activations.
  void move_to(const ProductArgs& a, const PlanePointers (&planes)[G], int64_t first,
               int64_t piece) {
    constexpr int64_t kLow = 64 * Traits::kLowBits;
#pragma GCC unroll 2
    for (int g = 0; g < G; ++g) {
      codes[g] = planes[g].codes + piece * kLow;
      high[g] = planes[g].high + piece * 64 * Traits::kHighBits;
      prefetch<kLow>(codes[g]);
      if constexpr (Traits::kHighBits > 0) prefetch<64 * Traits::kHighBits>(high[g]);
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
    for (int g = 0; g < G; ++g) w[g] = load_quad_codes<Q, quad>(codes[g], high[g]);
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) {
      const Quad x = load_quad(q[i] + 4 * quad);
#pragma GCC unroll 2
      for (int g = 0; g < G; ++g) dots[g][i] = dot_quad<kWide>(dots[g][i], w[g], x);
    }
  }
};

// The dot products of a sub-block into the running sums.
template <QuantType Q, typename Sum, int G, int N>
inline void add_dots(const ColumnTile<Q, G, N>& tile, const F32x16* const (&scales)[G],
                     const F32x16* const (&mins)[G], int k, const float (&x_scales)[N],
                     const int32_t (&x_sums)[N], Sum (&sums)[G][N]) {
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) {
    const F32x16 x_scale = splat(x_scales[i]);
    const F32x16 scaled_sum = splat(x_scales[i] * static_cast<float>(x_sums[i]));
#pragma GCC unroll 2
    for (int g = 0; g < G; ++g) {
      const F32x16 scale = mul(scales[g][k], x_scale);
      if constexpr (QuantTraits<Q>::kHasMin) {
        sums[g][i].block(to_float(tile.dots[g][i]), scale, mins[g][k], scaled_sum);
      } else {
        sums[g][i].block(to_float(tile.dots[g][i]), scale);
      }
    }
  }
}

// N activation rows times G row groups of a quantised type.
template <QuantType Q, typename Sum, int G, int N>
inline void quant_tile(const ProductArgs& a, const std::byte* group, int64_t first,
                       Sum (&sums)[G][N]) {
  using Traits = QuantTraits<Q>;
  constexpr int kSubs = Traits::kBlock / Traits::kSub;
  constexpr int64_t kPieces = Traits::kBlock / 32;
  PlanePointers planes[G];
#pragma GCC unroll 2
  for (int g = 0; g < G; ++g) planes[g] = PlanePointers(group + g * a.layout.bytes, a.layout);
  ColumnTile<Q, G, N> tile;
  F32x16 scale[G][kSubs], minimum[G][kSubs];
  for (int64_t b = 0; b < a.cols / Traits::kBlock; ++b) {
    const F32x16* scales[G];
    const F32x16* mins[G];
#pragma GCC unroll 2
    for (int g = 0; g < G; ++g) {
      load_scales<Q>(planes[g], b, scale[g], minimum[g]);
      scales[g] = scale[g];
      mins[g] = minimum[g];
    }
    for (int64_t piece = b * kPieces; piece < (b + 1) * kPieces; ++piece) {
      tile.move_to(a, planes, first, piece);
      float x_scales[N];
      int32_t x_sums[2][N];  // of the two halves
#pragma GCC unroll 8
      for (int i = 0; i < N; ++i) {
        x_scales[i] = a.scale[(first + i) * a.scale_stride + piece];
        x_sums[0][i] = a.sum[(first + i) * a.sum_stride + 2 * piece];
        x_sums[1][i] = a.sum[(first + i) * a.sum_stride + 2 * piece + 1];
      }
      const int k = static_cast<int>(piece % kPieces);
      if constexpr (Traits::kSub == 32) {
#pragma GCC unroll 8
        for (int i = 0; i < N; ++i) x_sums[0][i] += x_sums[1][i];
        tile.start(x_sums[0]);
        tile.template multiply<0>();
        tile.template multiply<4>();
        tile.template multiply<1>();
        tile.template multiply<5>();
        tile.template multiply<2>();
        tile.template multiply<6>();
        tile.template multiply<3>();
        tile.template multiply<7>();
        add_dots<Q>(tile, scales, mins, k, x_scales, x_sums[0], sums);
      } else {
        static_assert(Traits::kSub == 16);
        tile.start(x_sums[0]);
        tile.template multiply<0>();
        tile.template multiply<1>();
        tile.template multiply<2>();
        tile.template multiply<3>();
        add_dots<Q>(tile, scales, mins, 2 * k, x_scales, x_sums[0], sums);
        tile.start(x_sums[1]);
        tile.template multiply<4>();
        tile.template multiply<5>();
        tile.template multiply<6>();
        tile.template multiply<7>();
        add_dots<Q>(tile, scales, mins, 2 * k + 1, x_scales, x_sums[1], sums);
      }
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
  constexpr int kTile = G == 1 ? kProductTile : Sum::kPairTile;
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

// The matrix products, written once over the sixteen lanes of lanes.h; included by
// product_<isa>.cc only. Lane = weight row. The layout is drawn in pack.h.
//
// Quantised types, for every block of 32 columns in turn:
//   dot  = codes . q8 - offset * sum                      int32, exact
//   y    = fma(float(dot), d_w * d_x, y)                  SumF32
//   y    = fma(m_w, d_x * sum, y)                         types with a minimum
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

// One block of G row groups and N activations: what the steps below share.
template <int G, int N>
struct BlockTile {
  const uint8_t* codes[G];
  const uint8_t* high[G];
  const int8_t* q[N];
  I32x16 dots[G][N];

  // Every weight vector times the four activation bytes at `column`.
  template <bool kWide>
  void multiply(const Codes (&w)[G], int column) {
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) {
      const Quad quad = load_quad(q[i] + column);
#pragma GCC unroll 2
      for (int g = 0; g < G; ++g) dots[g][i] = dot_quad<kWide>(dots[g][i], w[g], quad);
    }
  }

  void multiply_bytes() {
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
      Codes w[G];
#pragma GCC unroll 2
      for (int g = 0; g < G; ++g) w[g] = load_codes(codes[g] + 64 * j);
      multiply<true>(w, 4 * j);
    }
  }

  // Vector j of a block of 4-bit codes, with the fifth bits if the type has them.
  template <int j, bool kFive>
  void multiply_nibbles() {
    Codes low[G], top[G];
#pragma GCC unroll 2
    for (int g = 0; g < G; ++g) {
      const Codes c = load_codes(codes[g] + 64 * j);
      low[g] = low_nibbles(c);
      top[g] = high_nibbles(c);
      if constexpr (kFive) {
        const Codes fifth = load_codes(high[g]);
        low[g] = with_fifth_low<j>(low[g], fifth);
        top[g] = with_fifth_high<j>(top[g], fifth);
      }
    }
    multiply<false>(low, 4 * j);
    multiply<false>(top, 16 + 4 * j);
  }
};

// N activation rows times G row groups of a quantised type.
template <QuantType Q, typename Sum, int G, int N>
inline void quant_tile(const ProductArgs& a, const std::byte* group, int64_t first,
                       Sum (&sums)[G][N]) {
  using Traits = QuantTraits<Q>;
  constexpr int64_t kCodeBytes = kRowGroup * (Traits::kBits == 8 ? 32 : 16);
  const int64_t blocks = a.cols / 32;
  BlockTile<G, N> tile;
  for (int64_t b = 0; b < blocks; ++b) {
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) tile.q[i] = a.q8 + (first + i) * a.q8_stride + 32 * b;
#pragma GCC unroll 2
    for (int g = 0; g < G; ++g) {
      const auto* base = reinterpret_cast<const uint8_t*>(group + g * a.layout.bytes);
      tile.codes[g] = base + a.layout.codes + b * kCodeBytes;
      tile.high[g] = base + a.layout.high + b * 64;
      prefetch<kCodeBytes>(tile.codes[g]);
#pragma GCC unroll 8
      for (int i = 0; i < N; ++i) tile.dots[g][i] = splat_int(0);
    }
    if constexpr (Traits::kBits == 8) {
      tile.multiply_bytes();
    } else {
      tile.template multiply_nibbles<0, Traits::kBits == 5>();
      tile.template multiply_nibbles<1, Traits::kBits == 5>();
      tile.template multiply_nibbles<2, Traits::kBits == 5>();
      tile.template multiply_nibbles<3, Traits::kBits == 5>();
    }
#pragma GCC unroll 2
    for (int g = 0; g < G; ++g) {
      const std::byte* base = group + g * a.layout.bytes;
      const auto* scales = reinterpret_cast<const uint16_t*>(base + a.layout.scales) + 16 * b;
      const F32x16 w_scale = load_f16(scales);
#pragma GCC unroll 8
      for (int i = 0; i < N; ++i) {
        const float x_scale = a.scale[(first + i) * a.scale_stride + b];
        const int32_t x_sum = a.sum[(first + i) * a.sum_stride + b];
        const F32x16 scale = mul(w_scale, splat(x_scale));
        if constexpr (Traits::kHasMin) {
          const auto* mins = reinterpret_cast<const uint16_t*>(base + a.layout.mins) + 16 * b;
          const F32x16 scaled_sum = splat(x_scale * static_cast<float>(x_sum));
          sums[g][i].block(to_float(tile.dots[g][i]), scale, load_f16(mins), scaled_sum);
        } else {
          const I32x16 dot = sub(tile.dots[g][i], splat_int(Traits::kOffset * x_sum));
          sums[g][i].block(to_float(dot), scale);
        }
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

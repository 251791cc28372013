// The ops that go along one row: norm, activation, quantisation, half conversion. Written once over
// the sixteen lanes of lanes.h; included by rows_<isa>.cc only.
#pragma once

#include <cstdint>

#include "kernels/cpu/lane_math.h"
#include "kernels/cpu/lanes.h"

namespace spillway::cpu::SPILLWAY_LANES {

// Squares and their sum in f64: lane i adds elements i, i+16, ...; then the tree of reduce_add.
inline void rms_norm_row(const float* x, const float* weight, int64_t n, float eps, float* out) {
  F64x16 squares = zero_f64();
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) squares = add_square(squares, load(x + i));
  if (i < n) squares = add_square(squares, load_n(x + i, n - i));
  const double mean = reduce_add(squares) / static_cast<double>(n);
  const double root = __builtin_sqrt(mean + static_cast<double>(eps));
  const F32x16 factor = splat(static_cast<float>(1.0 / root));
  for (i = 0; i + 16 <= n; i += 16) {
    store(out + i, mul(mul(load(x + i), factor), load(weight + i)));
  }
  if (i < n) {
    const int64_t rest = n - i;
    const F32x16 y = mul(mul(load_n(x + i, rest), factor), load_n(weight + i, rest));
    store_n(out + i, y, rest);
  }
}

// Below this the block is all but zero and 127 / max could overflow: codes 0, scale 0.
inline constexpr float kSmallestMaximum = 0x1p-100f;

// A block that holds a NaN or an infinity gets scale NaN and codes 0, so every product that reads
// it is NaN: a fault upstream is seen at once, on all instruction sets alike. sum: of each half.
inline void quantize_block(const float* x, int8_t* q8, float* scale, int32_t* sum) {
  const F32x16 low = load(x);
  const F32x16 high = load(x + 16);
  // As integers the magnitudes order like the floats, with infinity and NaN above all numbers.
  const I32x16 magnitude = splat_int(0x7fffffff);
  const int32_t max_bits =
      reduce_max(max(bit_and(bits(low), magnitude), bit_and(bits(high), magnitude)));
  float maximum;
  __builtin_memcpy(&maximum, &max_bits, 4);
  const bool finite = max_bits < 0x7f800000;
  if (!finite || maximum < kSmallestMaximum) {
    store_bytes(q8, splat_int(0));
    store_bytes(q8 + 16, splat_int(0));
    *scale = finite ? 0.0f : __builtin_nanf("");
    sum[0] = sum[1] = 0;
    return;
  }
  *scale = maximum / 127.0f;
  const F32x16 inverse = splat(127.0f / maximum);
  const I32x16 low_codes = round_to_int(mul(low, inverse));
  const I32x16 high_codes = round_to_int(mul(high, inverse));
  store_bytes(q8, low_codes);
  store_bytes(q8 + 16, high_codes);
  sum[0] = reduce_add(low_codes);
  sum[1] = reduce_add(high_codes);
}

inline void quantize_row(const float* x, int64_t n_blocks, int8_t* q8, float* scale, int32_t* sum) {
  for (int64_t b = 0; b < n_blocks; ++b) {
    quantize_block(x + 32 * b, q8 + 32 * b, scale + b, sum + 2 * b);
  }
}

inline void swiglu_row(const float* gate, const float* up, int64_t n, float* out) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) store(out + i, mul(silu(load(gate + i)), load(up + i)));
  if (i < n) {
    const int64_t rest = n - i;
    store_n(out + i, mul(silu(load_n(gate + i, rest)), load_n(up + i, rest)), rest);
  }
}

inline void geglu_row(const float* gate, const float* up, int64_t n, float* out) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) store(out + i, mul(gelu(load(gate + i)), load(up + i)));
  if (i < n) {
    const int64_t rest = n - i;
    store_n(out + i, mul(gelu(load_n(gate + i, rest)), load_n(up + i, rest)), rest);
  }
}

inline void to_f16_row(const float* x, int64_t n, uint16_t* out) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) store_f16_n(out + i, load(x + i), 16);
  if (i < n) store_f16_n(out + i, load_n(x + i, n - i), n - i);
}

inline void exp_row(const float* x, int64_t n, float* out) {
  for (int64_t i = 0; i < n; i += 16) {
    const int64_t m = n - i < 16 ? n - i : 16;
    store_n(out + i, exp(load_n(x + i, m)), m);
  }
}

}  // namespace spillway::cpu::SPILLWAY_LANES

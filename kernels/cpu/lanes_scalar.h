// The sixteen lanes as plain C++: the reference for the other sets, and what runs on any processor.
// See lanes.h. Fused multiply-adds call the C library where the processor has none: slow, exact.
#pragma once

#include <cstdint>

#include "kernels/core/half.h"

namespace spillway::cpu::lanes_scalar {

inline constexpr int kProductTile = 4;    // activations a register tile
inline constexpr int kFloatPairTile = 0;  // the same for two row groups at once, 0: never
inline constexpr int kDoublePairTile = 0;
inline constexpr int kTokenTile = 16;  // key dot products at once in attention

struct F32x16 {
  float v[16];
};
struct I32x16 {
  int32_t v[16];
};
struct F64x16 {
  double v[16];
};
struct Codes {  // 4 unsigned codes a lane
  uint8_t v[64];
};

inline uint32_t bits_of(float f) { return std::bit_cast<uint32_t>(f); }
inline float float_of(uint32_t b) { return std::bit_cast<float>(b); }

template <typename F>
inline F32x16 each(F f) {
  F32x16 r;
  for (int i = 0; i < 16; ++i) r.v[i] = f(i);
  return r;
}
template <typename F>
inline I32x16 each_int(F f) {
  I32x16 r;
  for (int i = 0; i < 16; ++i) r.v[i] = f(i);
  return r;
}

inline F32x16 splat(float f) {
  return each([=](int) { return f; });
}
inline F32x16 load(const float* p) {
  return each([=](int i) { return p[i]; });
}
inline F32x16 load_n(const float* p, int64_t n) {  // n of 16, zeros after
  return each([=](int i) { return i < n ? p[i] : 0.0f; });
}
inline void store(float* p, const F32x16& a) {
  for (int i = 0; i < 16; ++i) p[i] = a.v[i];
}
inline void store_n(float* p, const F32x16& a, int64_t n) {
  for (int64_t i = 0; i < n; ++i) p[i] = a.v[i];
}
inline F32x16 load_f16(const uint16_t* p) {
  return each([=](int i) { return f16_to_f32(p[i]); });
}
inline F32x16 load_f16_n(const uint16_t* p, int64_t n) {
  return each([=](int i) { return i < n ? f16_to_f32(p[i]) : 0.0f; });
}
inline F32x16 load_bf16(const uint16_t* p) {
  return each([=](int i) { return bf16_to_f32(p[i]); });
}
inline void store_f16_n(uint16_t* p, const F32x16& a, int64_t n) {
  for (int64_t i = 0; i < n; ++i) p[i] = f32_to_f16(a.v[i]);
}

inline F32x16 add(const F32x16& a, const F32x16& b) {
  return each([&](int i) { return a.v[i] + b.v[i]; });
}
inline F32x16 sub(const F32x16& a, const F32x16& b) {
  return each([&](int i) { return a.v[i] - b.v[i]; });
}
inline F32x16 mul(const F32x16& a, const F32x16& b) {
  return each([&](int i) { return a.v[i] * b.v[i]; });
}
inline F32x16 div(const F32x16& a, const F32x16& b) {
  return each([&](int i) { return a.v[i] / b.v[i]; });
}
// a * b + c, rounded once.
inline F32x16 fma(const F32x16& a, const F32x16& b, const F32x16& c) {
  return each([&](int i) { return __builtin_fmaf(a.v[i], b.v[i], c.v[i]); });
}
// a > b ? a : b, so b where either is NaN: what the processor's instructions do.
inline F32x16 max(const F32x16& a, const F32x16& b) {
  return each([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline F32x16 min(const F32x16& a, const F32x16& b) {
  return each([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
// x > y ? yes : no, so `no` where either is NaN.
inline F32x16 where_greater(const F32x16& x, const F32x16& y, const F32x16& yes, const F32x16& no) {
  return each([&](int i) { return x.v[i] > y.v[i] ? yes.v[i] : no.v[i]; });
}
// Lane i + lane i+8, then +4, +2, +1.
inline float reduce_add(const F32x16& a) {
  float s[8];
  for (int i = 0; i < 8; ++i) s[i] = a.v[i] + a.v[i + 8];
  for (int i = 0; i < 4; ++i) s[i] = s[i] + s[i + 4];
  return (s[0] + s[2]) + (s[1] + s[3]);
}
inline float reduce_max(const F32x16& a) {
  float m = a.v[0];
  for (int i = 1; i < 16; ++i) m = m > a.v[i] ? m : a.v[i];
  return m;
}
// Lane t is reduce_add(a[t]).
inline F32x16 reduce_add_each(const F32x16* a) {
  return each([=](int t) { return reduce_add(a[t]); });
}

inline I32x16 bits(const F32x16& a) {
  return each_int([&](int i) { return static_cast<int32_t>(bits_of(a.v[i])); });
}
inline F32x16 from_bits(const I32x16& a) {
  return each([&](int i) { return float_of(static_cast<uint32_t>(a.v[i])); });
}
inline I32x16 splat_int(int32_t k) {
  return each_int([=](int) { return k; });
}
inline I32x16 sub(const I32x16& a, const I32x16& b) {  // wraps
  return each_int([&](int i) {
    return static_cast<int32_t>(static_cast<uint32_t>(a.v[i]) - static_cast<uint32_t>(b.v[i]));
  });
}
inline I32x16 add(const I32x16& a, const I32x16& b) {  // wraps
  return each_int([&](int i) {
    return static_cast<int32_t>(static_cast<uint32_t>(a.v[i]) + static_cast<uint32_t>(b.v[i]));
  });
}
inline I32x16 mul(const I32x16& a, const I32x16& b) {  // wraps
  return each_int([&](int i) {
    return static_cast<int32_t>(static_cast<uint32_t>(a.v[i]) * static_cast<uint32_t>(b.v[i]));
  });
}
inline I32x16 bit_or(const I32x16& a, const I32x16& b) {
  return each_int([&](int i) { return a.v[i] | b.v[i]; });
}
inline I32x16 bit_xor(const I32x16& a, const I32x16& b) {
  return each_int([&](int i) { return a.v[i] ^ b.v[i]; });
}
inline I32x16 bit_and(const I32x16& a, const I32x16& b) {
  return each_int([&](int i) { return a.v[i] & b.v[i]; });
}
inline I32x16 max(const I32x16& a, const I32x16& b) {
  return each_int([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline I32x16 half_towards_minus(const I32x16& a) {
  return each_int([&](int i) { return a.v[i] >> 1; });
}
inline I32x16 shift_left(const I32x16& a, int k) {
  return each_int([&](int i) { return static_cast<int32_t>(static_cast<uint32_t>(a.v[i]) << k); });
}
inline I32x16 shift_right(const I32x16& a, int k) {  // fills with zeros
  return each_int([&](int i) { return static_cast<int32_t>(static_cast<uint32_t>(a.v[i]) >> k); });
}
inline I32x16 load_u8(const uint8_t* p) {
  return each_int([=](int i) { return p[i]; });
}
inline I32x16 load_i8(const uint8_t* p) {
  return each_int([=](int i) { return static_cast<int8_t>(p[i]); });
}
// Nearest, ties to even; |a| must be below 2^22.
inline I32x16 round_to_int(const F32x16& a) {
  return each_int(
      [&](int i) { return static_cast<int32_t>(bits_of(a.v[i] + 12582912.0f) - 0x4b400000u); });
}
inline F32x16 to_float(const I32x16& a) {
  return each([&](int i) { return static_cast<float>(a.v[i]); });
}
inline int32_t reduce_add(const I32x16& a) {
  int32_t s = 0;
  for (int i = 0; i < 16; ++i) s += a.v[i];
  return s;
}
inline int32_t reduce_max(const I32x16& a) {
  int32_t m = a.v[0];
  for (int i = 1; i < 16; ++i) m = m > a.v[i] ? m : a.v[i];
  return m;
}
// The low bytes; values must lie in [-128, 127].
inline void store_bytes(int8_t* p, const I32x16& a) {
  for (int i = 0; i < 16; ++i) p[i] = static_cast<int8_t>(a.v[i]);
}

inline F64x16 zero_f64() { return F64x16{}; }
inline F64x16 add(const F64x16& a, const F32x16& b) {
  F64x16 r;
  for (int i = 0; i < 16; ++i) r.v[i] = a.v[i] + static_cast<double>(b.v[i]);
  return r;
}
inline F64x16 add_square(const F64x16& a, const F32x16& b) {  // the square is exact
  F64x16 r;
  for (int i = 0; i < 16; ++i) {
    const double x = static_cast<double>(b.v[i]);
    r.v[i] = a.v[i] + x * x;
  }
  return r;
}
inline double reduce_add(const F64x16& a) {
  double s[8];
  for (int i = 0; i < 8; ++i) s[i] = a.v[i] + a.v[i + 8];
  for (int i = 0; i < 4; ++i) s[i] = s[i] + s[i + 4];
  return (s[0] + s[2]) + (s[1] + s[3]);
}
inline void store_n(double* p, const F64x16& a, int64_t n) {
  for (int64_t i = 0; i < n; ++i) p[i] = a.v[i];
}

inline Codes load_codes(const uint8_t* p) {
  Codes r;
  for (int i = 0; i < 64; ++i) r.v[i] = p[i];
  return r;
}
inline void store_codes(uint8_t* p, const Codes& c) {
  for (int i = 0; i < 64; ++i) p[i] = c.v[i];
}
// The bits of every byte from `from` on that the mask keeps.
template <int from, int mask>
inline Codes bits_at(const Codes& c) {
  Codes r;
  for (int i = 0; i < 64; ++i) r.v[i] = (c.v[i] >> from) & mask;
  return r;
}
// c | (high shifted left by `shift`, right if negative) & mask. The mask keeps no bit that another
// byte would shift in.
template <int shift, int mask>
inline Codes with_bits(const Codes& c, const Codes& high) {
  Codes r;
  for (int i = 0; i < 64; ++i) {
    const int bits =
        shift >= 0 ? high.v[i] << (shift >= 0 ? shift : 0) : high.v[i] >> (shift < 0 ? -shift : 0);
    r.v[i] = static_cast<uint8_t>(c.v[i] | (bits & mask));
  }
  return r;
}
// table[index] of every byte; indices up to 15, table of 16 bytes on a multiple of 16.
inline Codes look_up(const uint8_t* table, const Codes& index) {
  Codes r;
  for (int i = 0; i < 64; ++i) r.v[i] = table[index.v[i]];
  return r;
}
inline I32x16 load_words(const uint8_t* p) {
  I32x16 r;
  __builtin_memcpy(r.v, p, sizeof(r.v));
  return r;
}
inline I32x16 gather(const uint32_t* table, const I32x16& index) {
  return each_int([&](int i) { return static_cast<int32_t>(table[index.v[i]]); });
}
// 64 + magnitude, or 64 - magnitude where the sign's bit (0 to 3 of a lane) is set. Bits above are
// not looked at.
inline Codes with_signs(const I32x16& magnitudes, const I32x16& signs) {
  Codes r;
  for (int i = 0; i < 64; ++i) {
    const int magnitude = (magnitudes.v[i / 4] >> (8 * (i % 4))) & 255;
    const bool negative = ((signs.v[i / 4] >> (i % 4)) & 1) != 0;
    r.v[i] = static_cast<uint8_t>(64 + (negative ? -magnitude : magnitude));
  }
  return r;
}
// Four activation bytes as every lane needs them.
struct Quad {
  int8_t v[4];
};
inline Quad load_quad(const int8_t* p) { return {{p[0], p[1], p[2], p[3]}}; }
// Lane += codes . quad, exact. Codes up to 127 in dot_small, up to 255 in dot_wide.
inline I32x16 dot_wide(const I32x16& acc, const Codes& c, const Quad& q) {
  return each_int([&](int i) {
    const uint8_t* w = c.v + 4 * i;
    return acc.v[i] + w[0] * q.v[0] + w[1] * q.v[1] + w[2] * q.v[2] + w[3] * q.v[3];
  });
}
inline I32x16 dot_small(const I32x16& acc, const Codes& c, const Quad& q) {
  return dot_wide(acc, c, q);
}

}  // namespace spillway::cpu::lanes_scalar

// The sixteen lanes as two halves of eight: AVX2 with FMA and F16C. See lanes.h for the contract
// and lanes_scalar.h for what each function means.
#pragma once

#if defined(__AVX2__)

#include <immintrin.h>

#include <cstdint>

namespace spillway::cpu::lanes_avx2 {

inline constexpr int kProductTile = 4;
inline constexpr int kFloatPairTile = 0;  // the same for two row groups at once, 0: never
inline constexpr int kDoublePairTile = 0;
inline constexpr int kTokenTile = 4;

struct F32x16 {
  __m256 a, b;
};
struct I32x16 {
  __m256i a, b;
};
struct F64x16 {
  __m256d v[4];
};
struct Codes {
  __m256i a, b;
};

inline F32x16 splat(float f) { return {_mm256_set1_ps(f), _mm256_set1_ps(f)}; }
inline F32x16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline F32x16 load_n(const float* p, int64_t n) {
  float t[16] = {};
  for (int64_t i = 0; i < n; ++i) t[i] = p[i];
  return load(t);
}
inline void store(float* p, F32x16 x) {
  _mm256_storeu_ps(p, x.a);
  _mm256_storeu_ps(p + 8, x.b);
}
inline void store_n(float* p, F32x16 x, int64_t n) {
  float t[16];
  store(t, x);
  for (int64_t i = 0; i < n; ++i) p[i] = t[i];
}
inline F32x16 load_f16(const uint16_t* p) {
  const auto* q = reinterpret_cast<const __m128i*>(p);
  return {_mm256_cvtph_ps(_mm_loadu_si128(q)), _mm256_cvtph_ps(_mm_loadu_si128(q + 1))};
}
inline F32x16 load_f16_n(const uint16_t* p, int64_t n) {
  uint16_t t[16] = {};
  for (int64_t i = 0; i < n; ++i) t[i] = p[i];
  return load_f16(t);
}
inline __m256 widen_bf16(__m128i x) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}
inline F32x16 load_bf16(const uint16_t* p) {
  const auto* q = reinterpret_cast<const __m128i*>(p);
  return {widen_bf16(_mm_loadu_si128(q)), widen_bf16(_mm_loadu_si128(q + 1))};
}
inline void store_f16_n(uint16_t* p, F32x16 x, int64_t n) {
  uint16_t t[16];
  auto* q = reinterpret_cast<__m128i*>(n == 16 ? p : t);
  _mm_storeu_si128(q, _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT));
  _mm_storeu_si128(q + 1, _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT));
  if (n == 16) return;
  for (int64_t i = 0; i < n; ++i) p[i] = t[i];
}

inline F32x16 add(F32x16 x, F32x16 y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline F32x16 sub(F32x16 x, F32x16 y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline F32x16 mul(F32x16 x, F32x16 y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline F32x16 div(F32x16 x, F32x16 y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
inline F32x16 fma(F32x16 x, F32x16 y, F32x16 z) {
  return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
inline F32x16 max(F32x16 x, F32x16 y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
inline F32x16 min(F32x16 x, F32x16 y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
inline F32x16 where_greater(F32x16 x, F32x16 y, F32x16 yes, F32x16 no) {
  return {_mm256_blendv_ps(no.a, yes.a, _mm256_cmp_ps(x.a, y.a, _CMP_GT_OQ)),
          _mm256_blendv_ps(no.b, yes.b, _mm256_cmp_ps(x.b, y.b, _CMP_GT_OQ))};
}
inline float reduce_add(F32x16 x) {
  const __m256 s8 = _mm256_add_ps(x.a, x.b);
  const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}
inline float reduce_max(F32x16 x) {
  const __m256 s8 = _mm256_max_ps(x.a, x.b);
  const __m128 s4 = _mm_max_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_max_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_max_ss(s2, _mm_movehdup_ps(s2)));
}
inline F32x16 reduce_add_each(const F32x16* x) {
  float t[16];
  for (int i = 0; i < 16; ++i) t[i] = reduce_add(x[i]);
  return load(t);
}

inline I32x16 bits(F32x16 x) { return {_mm256_castps_si256(x.a), _mm256_castps_si256(x.b)}; }
inline F32x16 from_bits(I32x16 x) { return {_mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b)}; }
inline I32x16 splat_int(int32_t k) { return {_mm256_set1_epi32(k), _mm256_set1_epi32(k)}; }
inline I32x16 sub(I32x16 x, I32x16 y) {
  return {_mm256_sub_epi32(x.a, y.a), _mm256_sub_epi32(x.b, y.b)};
}
inline I32x16 add(I32x16 x, I32x16 y) {
  return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)};
}
inline I32x16 mul(I32x16 x, I32x16 y) {
  return {_mm256_mullo_epi32(x.a, y.a), _mm256_mullo_epi32(x.b, y.b)};
}
inline I32x16 bit_or(I32x16 x, I32x16 y) {
  return {_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)};
}
inline I32x16 bit_xor(I32x16 x, I32x16 y) {
  return {_mm256_xor_si256(x.a, y.a), _mm256_xor_si256(x.b, y.b)};
}
inline I32x16 bit_and(I32x16 x, I32x16 y) {
  return {_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)};
}
inline I32x16 max(I32x16 x, I32x16 y) {
  return {_mm256_max_epi32(x.a, y.a), _mm256_max_epi32(x.b, y.b)};
}
inline I32x16 half_towards_minus(I32x16 x) {
  return {_mm256_srai_epi32(x.a, 1), _mm256_srai_epi32(x.b, 1)};
}
inline I32x16 shift_left(I32x16 x, int k) {
  return {_mm256_slli_epi32(x.a, k), _mm256_slli_epi32(x.b, k)};
}
inline I32x16 shift_right(I32x16 x, int k) {
  return {_mm256_srli_epi32(x.a, k), _mm256_srli_epi32(x.b, k)};
}
inline I32x16 load_u8(const uint8_t* p) {
  const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm256_cvtepu8_epi32(x), _mm256_cvtepu8_epi32(_mm_srli_si128(x, 8))};
}
inline I32x16 load_i8(const uint8_t* p) {
  const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm256_cvtepi8_epi32(x), _mm256_cvtepi8_epi32(_mm_srli_si128(x, 8))};
}
inline I32x16 round_to_int(F32x16 x) { return {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }
inline F32x16 to_float(I32x16 x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
inline int32_t reduce_add(I32x16 x) {
  const __m256i s8 = _mm256_add_epi32(x.a, x.b);
  const __m128i s4 = _mm_add_epi32(_mm256_castsi256_si128(s8), _mm256_extracti128_si256(s8, 1));
  const __m128i s2 = _mm_add_epi32(s4, _mm_shuffle_epi32(s4, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(s2, _mm_shuffle_epi32(s2, 0xb1)));
}
inline int32_t reduce_max(I32x16 x) {
  const __m256i s8 = _mm256_max_epi32(x.a, x.b);
  const __m128i s4 = _mm_max_epi32(_mm256_castsi256_si128(s8), _mm256_extracti128_si256(s8, 1));
  const __m128i s2 = _mm_max_epi32(s4, _mm_shuffle_epi32(s4, 0x4e));
  return _mm_cvtsi128_si32(_mm_max_epi32(s2, _mm_shuffle_epi32(s2, 0xb1)));
}
inline void store_bytes(int8_t* p, I32x16 x) {
  // Packing works within 128-bit halves: words 0-3 8-11 4-7 12-15, put right by one permutation.
  const __m256i words = _mm256_packs_epi32(x.a, x.b);
  const __m256i ordered = _mm256_permute4x64_epi64(words, 0xd8);
  _mm_storeu_si128(
      reinterpret_cast<__m128i*>(p),
      _mm_packs_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1)));
}

inline F64x16 zero_f64() {
  const __m256d z = _mm256_setzero_pd();
  return {{z, z, z, z}};
}
inline __m256d low_f64(__m256 x) { return _mm256_cvtps_pd(_mm256_castps256_ps128(x)); }
inline __m256d high_f64(__m256 x) { return _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1)); }
inline F64x16 add(const F64x16& s, F32x16 x) {
  return {{_mm256_add_pd(s.v[0], low_f64(x.a)), _mm256_add_pd(s.v[1], high_f64(x.a)),
           _mm256_add_pd(s.v[2], low_f64(x.b)), _mm256_add_pd(s.v[3], high_f64(x.b))}};
}
inline F64x16 add_square(const F64x16& s, F32x16 x) {
  const __m256d d[4] = {low_f64(x.a), high_f64(x.a), low_f64(x.b), high_f64(x.b)};
  F64x16 r;
  for (int i = 0; i < 4; ++i) r.v[i] = _mm256_add_pd(s.v[i], _mm256_mul_pd(d[i], d[i]));
  return r;
}
inline double reduce_add(const F64x16& s) {
  const __m256d s0 = _mm256_add_pd(s.v[0], s.v[2]);
  const __m256d s1 = _mm256_add_pd(s.v[1], s.v[3]);
  const __m256d s4 = _mm256_add_pd(s0, s1);
  const __m128d s2 = _mm_add_pd(_mm256_castpd256_pd128(s4), _mm256_extractf128_pd(s4, 1));
  return _mm_cvtsd_f64(_mm_add_sd(s2, _mm_unpackhi_pd(s2, s2)));
}
inline void store_n(double* p, const F64x16& s, int64_t n) {
  double t[16];
  double* out = n == 16 ? p : t;
  for (int i = 0; i < 4; ++i) _mm256_storeu_pd(out + 4 * i, s.v[i]);
  if (n == 16) return;
  for (int64_t i = 0; i < n; ++i) p[i] = t[i];
}

inline Codes load_codes(const uint8_t* p) {
  const auto* q = reinterpret_cast<const __m256i*>(p);
  return {_mm256_load_si256(q), _mm256_load_si256(q + 1)};
}
inline void store_codes(uint8_t* p, Codes c) {
  auto* q = reinterpret_cast<__m256i*>(p);
  _mm256_store_si256(q, c.a);
  _mm256_store_si256(q + 1, c.b);
}
// Shifts whole 32-bit lanes: only bits of the same byte may be kept by the mask.
template <int shift>
inline __m256i shifted(__m256i x) {
  if constexpr (shift > 0) return _mm256_slli_epi32(x, shift);
  if constexpr (shift < 0) return _mm256_srli_epi32(x, -shift);
  return x;
}
template <int from, int mask>
inline Codes bits_at(Codes c) {
  const __m256i m = _mm256_set1_epi8(mask);
  return {_mm256_and_si256(shifted<-from>(c.a), m), _mm256_and_si256(shifted<-from>(c.b), m)};
}
template <int shift, int mask>
inline Codes with_bits(Codes c, Codes high) {
  const __m256i m = _mm256_set1_epi8(mask);
  return {_mm256_or_si256(c.a, _mm256_and_si256(shifted<shift>(high.a), m)),
          _mm256_or_si256(c.b, _mm256_and_si256(shifted<shift>(high.b), m))};
}
inline Codes look_up(const uint8_t* table, Codes index) {
  const __m256i entries =
      _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(table)));
  return {_mm256_shuffle_epi8(entries, index.a), _mm256_shuffle_epi8(entries, index.b)};
}
inline I32x16 load_words(const uint8_t* p) {
  const auto* q = reinterpret_cast<const __m256i*>(p);
  return {_mm256_load_si256(q), _mm256_load_si256(q + 1)};
}
inline I32x16 gather(const uint32_t* table, I32x16 index) {
  const auto* words = reinterpret_cast<const int*>(table);
  return {_mm256_i32gather_epi32(words, index.a, 4), _mm256_i32gather_epi32(words, index.b, 4)};
}
// 64 + magnitude, or 64 - magnitude where the sign's bit (0 to 3 of a lane) is set. Bits above are
// not looked at.
inline __m256i with_signs_half(__m256i magnitudes, __m256i signs) {
  const __m256i bit = _mm256_set1_epi32(0x08040201);
  const __m256i low = _mm256_and_si256(signs, _mm256_set1_epi32(15));
  const __m256i spread = _mm256_mullo_epi32(low, _mm256_set1_epi32(0x01010101));
  const __m256i mask = _mm256_cmpeq_epi8(_mm256_and_si256(spread, bit), bit);
  const __m256i negated = _mm256_sub_epi8(_mm256_xor_si256(magnitudes, mask), mask);
  return _mm256_add_epi8(negated, _mm256_set1_epi8(64));
}
inline Codes with_signs(I32x16 magnitudes, I32x16 signs) {
  return {with_signs_half(magnitudes.a, signs.a), with_signs_half(magnitudes.b, signs.b)};
}
struct Quad {
  __m256i v;
};
inline Quad load_quad(const int8_t* p) {
  int32_t four;
  __builtin_memcpy(&four, p, 4);
  return {_mm256_set1_epi32(four)};
}
// Two products of a code up to 127 and a byte stay within 16 bits: 2 * 127 * 128 < 32768.
inline I32x16 dot_small(I32x16 acc, Codes c, Quad q) {
  const __m256i ones = _mm256_set1_epi16(1);
  const __m256i a = _mm256_madd_epi16(_mm256_maddubs_epi16(c.a, q.v), ones);
  const __m256i b = _mm256_madd_epi16(_mm256_maddubs_epi16(c.b, q.v), ones);
  return {_mm256_add_epi32(acc.a, a), _mm256_add_epi32(acc.b, b)};
}
// Codes up to 255 would saturate there, so even and odd bytes are widened and multiplied apart.
inline __m256i dot_wide_half(__m256i acc, __m256i c, __m256i even_q, __m256i odd_q) {
  const __m256i even = _mm256_and_si256(c, _mm256_set1_epi16(255));
  const __m256i odd = _mm256_srli_epi16(c, 8);
  const __m256i sum =
      _mm256_add_epi32(_mm256_madd_epi16(even, even_q), _mm256_madd_epi16(odd, odd_q));
  return _mm256_add_epi32(acc, sum);
}
inline I32x16 dot_wide(I32x16 acc, Codes c, Quad q) {
  const __m256i even_q = _mm256_srai_epi16(_mm256_slli_epi16(q.v, 8), 8);
  const __m256i odd_q = _mm256_srai_epi16(q.v, 8);
  return {dot_wide_half(acc.a, c.a, even_q, odd_q), dot_wide_half(acc.b, c.b, even_q, odd_q)};
}

}  // namespace spillway::cpu::lanes_avx2

#endif  // __AVX2__

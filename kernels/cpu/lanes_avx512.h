// The sixteen lanes as one register: AVX-512 F, BW, VL, DQ and VNNI. See lanes.h for the contract
// and lanes_scalar.h for what each function means.
#pragma once

#if defined(__AVX512F__)

#include <immintrin.h>

#include <cstdint>

namespace spillway::cpu::lanes_avx512 {

inline constexpr int kProductTile = 8;
inline constexpr int kFloatPairTile = 6;  // the same for two row groups at once, 0: never
inline constexpr int kDoublePairTile = 4;
inline constexpr int kTokenTile = 16;

struct F32x16 {
  __m512 v;
};
struct I32x16 {
  __m512i v;
};
struct F64x16 {
  __m512d a, b;
};
struct Codes {
  __m512i v;
};

inline __mmask16 first(int64_t n) { return static_cast<__mmask16>((1u << n) - 1u); }

inline F32x16 splat(float f) { return {_mm512_set1_ps(f)}; }
inline F32x16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline F32x16 load_n(const float* p, int64_t n) { return {_mm512_maskz_loadu_ps(first(n), p)}; }
inline void store(float* p, F32x16 x) { _mm512_storeu_ps(p, x.v); }
inline void store_n(float* p, F32x16 x, int64_t n) { _mm512_mask_storeu_ps(p, first(n), x.v); }
inline F32x16 load_f16(const uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline F32x16 load_f16_n(const uint16_t* p, int64_t n) {
  return {_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(n), p))};
}
inline F32x16 load_bf16(const uint16_t* p) {
  const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16))};
}
inline void store_f16_n(uint16_t* p, F32x16 x, int64_t n) {
  _mm256_mask_storeu_epi16(p, first(n), _mm512_cvtps_ph(x.v, _MM_FROUND_TO_NEAREST_INT));
}

inline F32x16 add(F32x16 x, F32x16 y) { return {_mm512_add_ps(x.v, y.v)}; }
inline F32x16 sub(F32x16 x, F32x16 y) { return {_mm512_sub_ps(x.v, y.v)}; }
inline F32x16 mul(F32x16 x, F32x16 y) { return {_mm512_mul_ps(x.v, y.v)}; }
inline F32x16 div(F32x16 x, F32x16 y) { return {_mm512_div_ps(x.v, y.v)}; }
inline F32x16 fma(F32x16 x, F32x16 y, F32x16 z) { return {_mm512_fmadd_ps(x.v, y.v, z.v)}; }
inline F32x16 max(F32x16 x, F32x16 y) { return {_mm512_max_ps(x.v, y.v)}; }
inline F32x16 min(F32x16 x, F32x16 y) { return {_mm512_min_ps(x.v, y.v)}; }
inline F32x16 where_greater(F32x16 x, F32x16 y, F32x16 yes, F32x16 no) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(x.v, y.v, _CMP_GT_OQ), no.v, yes.v)};
}
inline float reduce_add(F32x16 x) {
  const __m256 s8 = _mm256_add_ps(_mm512_castps512_ps256(x.v), _mm512_extractf32x8_ps(x.v, 1));
  const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}
inline float reduce_max(F32x16 x) {
  const __m256 s8 = _mm256_max_ps(_mm512_castps512_ps256(x.v), _mm512_extractf32x8_ps(x.v, 1));
  const __m128 s4 = _mm_max_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_max_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_max_ss(s2, _mm_movehdup_ps(s2)));
}
// Sixteen reductions at once: each level adds the same pairs as reduce_add and packs two vectors
// into one, 15 additions in place of 64. Vector 4i + q ends in 128-bit part i, position q.
inline F32x16 reduce_add_each(const F32x16* x) {
  __m512 quads[4];
  for (int q = 0; q < 4; ++q) {
    const __m512 a = x[q].v, b = x[q + 4].v, c = x[q + 8].v, d = x[q + 12].v;
    const __m512 ab =
        _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    const __m512 cd =
        _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
    quads[q] =
        _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
  }
  const __m512 even = _mm512_add_ps(_mm512_shuffle_ps(quads[0], quads[1], 0x44),
                                    _mm512_shuffle_ps(quads[0], quads[1], 0xee));
  const __m512 odd = _mm512_add_ps(_mm512_shuffle_ps(quads[2], quads[3], 0x44),
                                   _mm512_shuffle_ps(quads[2], quads[3], 0xee));
  return {_mm512_add_ps(_mm512_shuffle_ps(even, odd, 0x88), _mm512_shuffle_ps(even, odd, 0xdd))};
}

inline I32x16 bits(F32x16 x) { return {_mm512_castps_si512(x.v)}; }
inline F32x16 from_bits(I32x16 x) { return {_mm512_castsi512_ps(x.v)}; }
inline I32x16 splat_int(int32_t k) { return {_mm512_set1_epi32(k)}; }
inline I32x16 sub(I32x16 x, I32x16 y) { return {_mm512_sub_epi32(x.v, y.v)}; }
inline I32x16 add(I32x16 x, I32x16 y) { return {_mm512_add_epi32(x.v, y.v)}; }
inline I32x16 mul(I32x16 x, I32x16 y) { return {_mm512_mullo_epi32(x.v, y.v)}; }
inline I32x16 bit_or(I32x16 x, I32x16 y) { return {_mm512_or_si512(x.v, y.v)}; }
inline I32x16 bit_xor(I32x16 x, I32x16 y) { return {_mm512_xor_si512(x.v, y.v)}; }
inline I32x16 bit_and(I32x16 x, I32x16 y) { return {_mm512_and_si512(x.v, y.v)}; }
inline I32x16 max(I32x16 x, I32x16 y) { return {_mm512_max_epi32(x.v, y.v)}; }
inline I32x16 half_towards_minus(I32x16 x) { return {_mm512_srai_epi32(x.v, 1)}; }
inline I32x16 shift_left(I32x16 x, int k) { return {_mm512_slli_epi32(x.v, k)}; }
inline I32x16 shift_right(I32x16 x, int k) { return {_mm512_srli_epi32(x.v, k)}; }
inline I32x16 load_u8(const uint8_t* p) {
  return {_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
inline I32x16 load_i8(const uint8_t* p) {
  return {_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
inline I32x16 round_to_int(F32x16 x) { return {_mm512_cvtps_epi32(x.v)}; }
inline F32x16 to_float(I32x16 x) { return {_mm512_cvtepi32_ps(x.v)}; }
inline int32_t reduce_add(I32x16 x) { return _mm512_reduce_add_epi32(x.v); }
inline int32_t reduce_max(I32x16 x) { return _mm512_reduce_max_epi32(x.v); }
inline void store_bytes(int8_t* p, I32x16 x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(x.v));
}

inline F64x16 zero_f64() { return {_mm512_setzero_pd(), _mm512_setzero_pd()}; }
inline __m512d low_f64(F32x16 x) { return _mm512_cvtps_pd(_mm512_castps512_ps256(x.v)); }
inline __m512d high_f64(F32x16 x) { return _mm512_cvtps_pd(_mm512_extractf32x8_ps(x.v, 1)); }
inline F64x16 add(F64x16 s, F32x16 x) {
  return {_mm512_add_pd(s.a, low_f64(x)), _mm512_add_pd(s.b, high_f64(x))};
}
inline F64x16 add_square(F64x16 s, F32x16 x) {
  const __m512d low = low_f64(x);
  const __m512d high = high_f64(x);
  return {_mm512_add_pd(s.a, _mm512_mul_pd(low, low)),
          _mm512_add_pd(s.b, _mm512_mul_pd(high, high))};
}
inline double reduce_add(F64x16 s) {
  const __m512d s8 = _mm512_add_pd(s.a, s.b);
  const __m256d s4 = _mm256_add_pd(_mm512_castpd512_pd256(s8), _mm512_extractf64x4_pd(s8, 1));
  const __m128d s2 = _mm_add_pd(_mm256_castpd256_pd128(s4), _mm256_extractf128_pd(s4, 1));
  return _mm_cvtsd_f64(_mm_add_sd(s2, _mm_unpackhi_pd(s2, s2)));
}
inline void store_n(double* p, F64x16 s, int64_t n) {
  const uint32_t mask = first(n);
  _mm512_mask_storeu_pd(p, static_cast<__mmask8>(mask & 255u), s.a);
  _mm512_mask_storeu_pd(p + 8, static_cast<__mmask8>(mask >> 8), s.b);
}

inline Codes load_codes(const uint8_t* p) { return {_mm512_load_si512(p)}; }
inline void store_codes(uint8_t* p, Codes c) { _mm512_store_si512(p, c.v); }
// Shifts whole 32-bit lanes: only bits of the same byte may be kept by the mask.
template <int shift>
inline __m512i shifted(__m512i x) {
  if constexpr (shift > 0) return _mm512_slli_epi32(x, shift);
  if constexpr (shift < 0) return _mm512_srli_epi32(x, -shift);
  return x;
}
template <int from, int mask>
inline Codes bits_at(Codes c) {
  return {_mm512_and_si512(shifted<-from>(c.v), _mm512_set1_epi8(mask))};
}
template <int shift, int mask>
inline Codes with_bits(Codes c, Codes high) {
  constexpr int kOrAnd = 0xf8;  // a | (b & c)
  return {_mm512_ternarylogic_epi32(c.v, shifted<shift>(high.v), _mm512_set1_epi8(mask), kOrAnd)};
}
inline Codes look_up(const uint8_t* table, Codes index) {
  const __m128i entries = _mm_load_si128(reinterpret_cast<const __m128i*>(table));
  return {_mm512_shuffle_epi8(_mm512_broadcast_i32x4(entries), index.v)};
}
inline I32x16 load_words(const uint8_t* p) { return {_mm512_load_si512(p)}; }
inline I32x16 gather(const uint32_t* table, I32x16 index) {
  return {_mm512_i32gather_epi32(index.v, table, 4)};
}
// 64 + magnitude, or 64 - magnitude where the sign's bit (0 to 3 of a lane) is set. Bits above are
// not looked at.
inline Codes with_signs(I32x16 magnitudes, I32x16 signs) {
  const __m512i bytes = _mm512_setr_epi32(
      0, 0xff, 0xff00, 0xffff, 0xff0000, 0xff00ff, 0xffff00, 0xffffff,
      static_cast<int>(0xff000000u), static_cast<int>(0xff0000ffu), static_cast<int>(0xff00ff00u),
      static_cast<int>(0xff00ffffu), static_cast<int>(0xffff0000u), static_cast<int>(0xffff00ffu),
      static_cast<int>(0xffffff00u), -1);
  const __m512i mask = _mm512_permutexvar_epi32(signs.v, bytes);
  const __m512i negated = _mm512_sub_epi8(_mm512_xor_si512(magnitudes.v, mask), mask);
  return {_mm512_add_epi8(negated, _mm512_set1_epi8(64))};
}
struct Quad {
  __m512i v;
};
inline Quad load_quad(const int8_t* p) {
  int32_t four;
  __builtin_memcpy(&four, p, 4);
  return {_mm512_set1_epi32(four)};
}
inline I32x16 dot_wide(I32x16 acc, Codes c, Quad q) {
  return {_mm512_dpbusd_epi32(acc.v, c.v, q.v)};
}
inline I32x16 dot_small(I32x16 acc, Codes c, Quad q) { return dot_wide(acc, c, q); }

}  // namespace spillway::cpu::lanes_avx512

#endif  // __AVX512F__

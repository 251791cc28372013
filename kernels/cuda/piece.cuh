// How a thread reads packed weights (drawn in kernels/cpu/pack.h): a "piece" is 32 columns of a
// group of 16 rows. Four lanes share a piece: lane % 4 picks four consecutive rows, so that one
// 16-byte load brings a quad of codes of four rows, and one 4-byte load a sub-scale of each.
// Read by the products (gemv.cuh, tile.cuh) and the dequantiser (dequant.cuh); all of them get
//   value = factor * (s * (code - offset)) + minimum,  s an integer, one a sub-block
// The codes of a quad come out as 4 signed bytes, ready for dp4a and mma.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "kernels/core/dispatch.h"
#include "kernels/core/packed_matrix.h"

namespace spillway::cuda {

inline constexpr int kRowsPerLane = 4;
inline constexpr int kPiece = 32;

// Weights are read once: past L1, in whole L2 lines.
__device__ __forceinline__ uint4 load_stream(const void* from) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from));
  return v;
}
__device__ __forceinline__ uint2 load_pair(const void* from) {
  return __ldg(static_cast<const uint2*>(from));
}
__device__ __forceinline__ uint32_t load_word(const void* from) {
  return __ldg(static_cast<const uint32_t*>(from));
}

__device__ __forceinline__ uint32_t word_of(const uint4& v, int r) {
  return r == 0 ? v.x : r == 1 ? v.y : r == 2 ? v.z : v.w;
}
__device__ __forceinline__ float half_of(const uint2& v, int r) {
  const uint32_t word = r < 2 ? v.x : v.y;
  return __half2float(__ushort_as_half(static_cast<uint16_t>(r % 2 ? word >> 16 : word)));
}
__device__ __forceinline__ int byte_of(uint32_t word, int r) { return (word >> (8 * r)) & 0xff; }

// Offsets of a group's planes, 32 bits are enough within a group.
struct Planes {
  uint32_t codes, high, sub, scales, mins;
};
inline Planes planes_of(const GroupLayout& layout) {
  return {static_cast<uint32_t>(layout.codes), static_cast<uint32_t>(layout.high),
          static_cast<uint32_t>(layout.sub), static_cast<uint32_t>(layout.scales),
          static_cast<uint32_t>(layout.mins)};
}

// Facts of a type that follow from its traits.
template <typename T>
struct Form {
  static constexpr bool kTwoSubs = T::kSub == 16;  // sub-blocks in a piece: 2 or 1
  static constexpr int kSubs = kTwoSubs ? 2 : 1;
  // What is still to be subtracted from a code as quads() gives it.
  static constexpr int kOffset = T::kTable || T::kGrid != 0 || T::kBits == 8 ? 0 : T::kOffset;
  // The product's integer part has a factor of its own.
  static constexpr bool kScaled = T::kScales != Scales::kHalf && T::kScales != Scales::kExponent;
  static constexpr int kLow = T::kLowBits;
  static constexpr int kHigh = T::kHighBits;
  static constexpr int kBlockPieces = T::kBlock / kPiece;
};

// ---- Codes -------------------------------------------------------------------------------------

template <int kBits>
struct Vectors {
  uint4 v[kBits];
};
template <>
struct Vectors<0> {};

template <typename T>
struct Codes {
  Vectors<T::kLowBits> low;
  Vectors<T::kHighBits> high;
};

// All of a piece's codes of four rows. group: the group's first byte.
template <typename T>
__device__ __forceinline__ void load_codes(const std::byte* group, const Planes& planes, int piece,
                                           int row4, Codes<T>& out) {
  const std::byte* low = group + planes.codes + piece * (T::kLowBits * 64) + row4 * 16;
#pragma unroll
  for (int j = 0; j < T::kLowBits; ++j) out.low.v[j] = load_stream(low + 64 * j);
  if constexpr (T::kHighBits > 0) {
    const std::byte* high = group + planes.high + piece * (T::kHighBits * 64) + row4 * 16;
#pragma unroll
    for (int j = 0; j < T::kHighBits; ++j) out.high.v[j] = load_stream(high + 64 * j);
  }
}

// 16 signed bytes looked up by the nibbles of a word. The low nibbles of its bytes give `even`, the
// high ones `odd`.
struct ByteTable {
  uint32_t w[4];
};
template <typename T>
constexpr uint32_t table_word(int i) {
  uint32_t word = 0;
  for (int b = 0; b < 4; ++b) {
    word |= static_cast<uint32_t>(static_cast<uint8_t>(T::kValues[4 * i + b])) << (8 * b);
  }
  return word;
}
template <typename T>
__device__ __forceinline__ ByteTable byte_table() {
  constexpr uint32_t w0 = table_word<T>(0), w1 = table_word<T>(1);
  constexpr uint32_t w2 = table_word<T>(2), w3 = table_word<T>(3);
  return {{w0, w1, w2, w3}};
}
__device__ __forceinline__ void look_up(const ByteTable& table, uint32_t nibbles, uint32_t& even,
                                        uint32_t& odd) {
  // Byte-permute takes 3 bits an index; the fourth picks between the halves of the table.
  const auto four = [&](uint32_t n) {
    const uint32_t index = n & 0x7777u;
    const uint32_t first = __byte_perm(table.w[0], table.w[1], index);
    const uint32_t second = __byte_perm(table.w[2], table.w[3], index);
    return __byte_perm(first, second, 0x3210u | ((n & 0x8888u) >> 1));
  };
  const uint32_t a = four(nibbles);        // bytes: even 0, odd 0, even 1, odd 1
  const uint32_t b = four(nibbles >> 16);  // even 2, odd 2, even 3, odd 3
  even = __byte_perm(a, b, 0x6420u);
  odd = __byte_perm(a, b, 0x7531u);
}

// Quads q and q + 4 of four rows' codes, for types without a grid. q may be a run-time value (the
// vector is then the caller's lane), as long as `low` is the vector that holds them.
template <typename T>
__device__ __forceinline__ void expand_high(const Codes<T>& codes, int r, int q, uint32_t& first,
                                            uint32_t& second) {
  if constexpr (T::kHighBits == 1) {
    const uint32_t h = word_of(codes.high.v[0], r);
    first |= ((h >> q) & 0x01010101u) << T::kLowBits;
    second |= ((h >> (q + 4)) & 0x01010101u) << T::kLowBits;
  } else if constexpr (T::kHighBits == 2) {
    first |= ((word_of(codes.high.v[0], r) >> (2 * q)) & 0x03030303u) << T::kLowBits;
    second |= ((word_of(codes.high.v[1], r) >> (2 * q)) & 0x03030303u) << T::kLowBits;
  }
}

// The 8 quads of row r as signed bytes; types without a grid.
template <typename T>
__device__ __forceinline__ void quads(const Codes<T>& codes, int r, uint32_t out[8]) {
#pragma unroll
  for (int q = 0; q < 4; ++q) {
    uint32_t first;
    uint32_t second;
    if constexpr (T::kLowBits == 8) {
      first = word_of(codes.low.v[q], r) ^ 0x80808080u;
      second = word_of(codes.low.v[q + 4], r) ^ 0x80808080u;
    } else if constexpr (T::kTable) {
      look_up(byte_table<T>(), word_of(codes.low.v[q], r), first, second);
    } else if constexpr (T::kLowBits == 4) {
      const uint32_t w = word_of(codes.low.v[q], r);
      first = w & 0x0f0f0f0fu;
      second = (w >> 4) & 0x0f0f0f0fu;
    } else {
      first = (word_of(codes.low.v[0], r) >> (2 * q)) & 0x03030303u;
      second = (word_of(codes.low.v[1], r) >> (2 * q)) & 0x03030303u;
    }
    expand_high<T>(codes, r, q, first, second);
    out[q] = first;
    out[q + 4] = second;
  }
}

// ---- Grids (IQ2, IQ3): kernels/core/iq_grids.h
// ---------------------------------------------------

// Four times 7 signs, one in each byte, and their parities as the eighth bits.
__device__ __forceinline__ uint32_t with_parities(uint32_t sevens) {
  uint32_t folded = sevens ^ (sevens >> 4);
  folded ^= folded >> 2;
  folded ^= folded >> 1;
  return sevens | (folded & 0x01010101u) << 7;
}

// The 32 signs of row r, bit c column c. codes: the piece's vectors.
template <QuantType Q>
__device__ __forceinline__ uint32_t grid_signs(const Codes<QuantTraits<Q>>& codes, int r) {
  using T = QuantTraits<Q>;
  if constexpr (Q == QuantType::kIQ2_XS) {
    const uint32_t a = word_of(codes.low.v[0], r);
    const uint32_t b = word_of(codes.low.v[1], r);
    return with_parities(((a >> 9) & 127u) | ((a >> 25) & 127u) << 8 | ((b >> 9) & 127u) << 16 |
                         ((b >> 25) & 127u) << 24);
  } else {
    const uint32_t word = word_of(codes.high.v[0], r);
    if constexpr (!T::kSharedSigns) return word;
    return with_parities((word & 127u) | ((word << 1) & (127u << 8)) |
                         ((word << 2) & (127u << 16)) | ((word << 3) & (127u << 24)));
  }
}

// Columns 4q to 4q + 3 of row r. upper: the upper bits of the row's indices.
template <QuantType Q>
__device__ __forceinline__ uint32_t grid_quad(const uint32_t* grid,
                                              const Codes<QuantTraits<Q>>& codes, uint32_t signs,
                                              int upper, int r, int q) {
  using T = QuantTraits<Q>;
  uint32_t index;
  if constexpr (T::kGrid == 4) {
    const uint32_t word = q < 4 ? word_of(codes.low.v[0], r) : word_of(codes.low.v[1], r);
    index = (word >> (8 * (q & 3))) & 255u;
    if constexpr (Q == QuantType::kIQ3_S) index |= (static_cast<uint32_t>(upper) << (8 - q)) & 256u;
  } else {
    const int j = q >> 1;
    if constexpr (Q == QuantType::kIQ2_XS) {
      const uint32_t word = j < 2 ? word_of(codes.low.v[0], r) : word_of(codes.low.v[1], r);
      index = (word >> (16 * (j & 1))) & 511u;
    } else {
      index = (word_of(codes.low.v[0], r) >> (8 * j)) & 255u;
    }
    if constexpr (Q == QuantType::kIQ2_S) {
      index |= (static_cast<uint32_t>(upper) << (8 - 2 * j)) & (3u << 8);
    }
    index = index << 1 | (q & 1);
  }
  const uint32_t magnitudes = __ldg(grid + index);
  // Four bits of signs to four bytes of 0 or 1; no magnitude is 0, so nothing carries.
  const uint32_t ones = (((signs >> (4 * q)) & 15u) * 0x00204081u) & 0x01010101u;
  return (magnitudes ^ (ones * 255u)) + ones;
}

// ---- Scales ------------------------------------------------------------------------------------

// Of four rows: half floats, and the words that hold sub-scales, a byte a row.
template <typename T>
struct PieceScales {
  uint2 d;
  uint2 m;
  uint32_t sub[Form<T>::kSubs];
  uint32_t min[Form<T>::kSubs];
  uint32_t upper;  // grids: the upper bits of indices
};

// The same as it lies in memory, so that it can be asked for long before it is taken apart.
template <typename T>
constexpr int scale_words_of_piece() {
  if constexpr (T::kGrid != 0) {
    return T::kSubBytes == 0 ? 0 : 1 + (T::kHighBits == 1 ? 1 : 0);
  }
  switch (T::kScales) {
    case Scales::kSixBit:
      return 2 * Form<T>::kSubs;
    case Scales::kSixBitMin:
      return 2;
    case Scales::kFourBitMin:
    case Scales::kSignedByte:
      return Form<T>::kSubs;
    case Scales::kExponent:
      return 1;
    default:
      return 0;
  }
}
template <typename T>
struct RawScales {
  static constexpr int kWords = scale_words_of_piece<T>();
  uint2 d;
  uint2 m;
  uint32_t w[kWords > 0 ? kWords : 1];
};

// Number m of n numbers of 6 bits lies in a strip of nibbles and a strip of upper bits.
template <int n>
__device__ __forceinline__ uint32_t six_bits(uint32_t nibbles, uint32_t uppers, unsigned m) {
  return ((nibbles >> (4 * (m / (n / 2)))) & 0x0f0f0f0fu) |
         ((uppers >> (2 * (m / (n / 4)))) & 0x03030303u) << 4;
}

template <typename T>
__device__ __forceinline__ void load_raw_scales(const std::byte* group, const Planes& planes,
                                                unsigned piece, int row4, RawScales<T>& out) {
  const unsigned block = piece / Form<T>::kBlockPieces;  // unsigned: shifts and masks
  const unsigned k = piece % Form<T>::kBlockPieces;
  if constexpr (T::kScales != Scales::kExponent) {
    out.d = load_pair(group + planes.scales + block * 32 + row4 * 8);
  }
  if constexpr (T::kHasMin) out.m = load_pair(group + planes.mins + block * 32 + row4 * 8);
  const std::byte* strips =
      group + planes.sub + block * static_cast<unsigned>(T::kSubBytes * 16) + row4 * 4;
  const auto strip = [&](unsigned i) { return load_word(strips + 16 * i); };
  if constexpr (T::kGrid != 0) {
    // Upper bits of indices, one strip a piece, where the type has them; then scale bytes, whose
    // nibbles are the sub-blocks in order. Where signs are shared there are none: sign_scales.
    constexpr int kUpper = T::kHighBits == 1 && !T::kSharedSigns ? 8 : 0;
    if constexpr (T::kSubBytes > 0) out.w[0] = strip(kUpper + (Form<T>::kTwoSubs ? k : k / 2));
    if constexpr (kUpper > 0) out.w[1] = strip(k);
  } else if constexpr (T::kScales == Scales::kExponent) {
    out.w[0] = strip(0);
  } else if constexpr (T::kScales == Scales::kSixBitMin) {
    out.w[0] = strip(k);  // scale k and minimum k are halves of one
    out.w[1] = strip(8 + k % 4);
  } else if constexpr (T::kScales == Scales::kSixBit) {
    constexpr unsigned n = 256 / T::kSub;
#pragma unroll
    for (int i = 0; i < Form<T>::kSubs; ++i) {
      const unsigned m = Form<T>::kSubs * k + i;
      out.w[2 * i] = strip(m % (n / 2));
      out.w[2 * i + 1] = strip(n / 2 + m % (n / 4));
    }
  } else if constexpr (RawScales<T>::kWords > 0) {  // a strip a sub-block
#pragma unroll
    for (int i = 0; i < Form<T>::kSubs; ++i) out.w[i] = strip(Form<T>::kSubs * k + i);
  }
}

// k: the piece's place in its block.
template <typename T>
__device__ __forceinline__ void take_apart(const RawScales<T>& raw, unsigned k,
                                           PieceScales<T>& out) {
  out.d = raw.d;
  out.m = raw.m;
  if constexpr (T::kGrid != 0) {
    if constexpr (RawScales<T>::kWords == 2) out.upper = raw.w[1];
    if constexpr (Form<T>::kTwoSubs) {
      out.sub[0] = raw.w[0] & 0x0f0f0f0fu;
      out.sub[1] = (raw.w[0] >> 4) & 0x0f0f0f0fu;
    } else if constexpr (T::kSubBytes > 0) {
      out.sub[0] = (raw.w[0] >> (4 * (k % 2))) & 0x0f0f0f0fu;
    }
  } else if constexpr (T::kScales == Scales::kSixBitMin) {
    out.sub[0] = six_bits<16>(raw.w[0], raw.w[1], k);
    out.min[0] = six_bits<16>(raw.w[0], raw.w[1], 8 + k);
  } else if constexpr (T::kScales == Scales::kSixBit) {
#pragma unroll
    for (int i = 0; i < Form<T>::kSubs; ++i) {
      out.sub[i] = six_bits<256 / T::kSub>(raw.w[2 * i], raw.w[2 * i + 1], Form<T>::kSubs * k + i);
    }
  } else if constexpr (T::kScales == Scales::kFourBitMin) {
#pragma unroll
    for (int i = 0; i < Form<T>::kSubs; ++i) {
      out.sub[i] = raw.w[i] & 0x0f0f0f0fu;
      out.min[i] = (raw.w[i] >> 4) & 0x0f0f0f0fu;
    }
  } else if constexpr (RawScales<T>::kWords > 0) {
#pragma unroll
    for (int i = 0; i < Form<T>::kSubs; ++i) out.sub[i] = raw.w[i];
  }
}

template <typename T>
__device__ __forceinline__ void sign_scales(const Codes<T>& codes, PieceScales<T>& out) {
  if constexpr (T::kGrid != 0 && T::kSubBytes == 0) {
    const uint4& v = codes.high.v[0];
    out.sub[0] = v.x >> 28 | (v.y >> 28) << 8 | (v.z >> 28) << 16 | (v.w >> 28) << 24;
  }
}

template <typename T>
__device__ __forceinline__ void load_scales(const std::byte* group, const Planes& planes, int piece,
                                            int row4, PieceScales<T>& out) {
  RawScales<T> raw;
  load_raw_scales<T>(group, planes, piece, row4, raw);
  take_apart<T>(raw, static_cast<unsigned>(piece) % Form<T>::kBlockPieces, out);
}

// The integer factor of sub-block i of row r.
template <typename T>
__device__ __forceinline__ int sub_factor(const PieceScales<T>& s, int i, int r) {
  if constexpr (T::kScales == Scales::kSixBit) return byte_of(s.sub[i], r) - 32;
  if constexpr (T::kScales == Scales::kSignedByte) {
    return static_cast<int8_t>(byte_of(s.sub[i], r));
  }
  if constexpr (T::kScales == Scales::kOddNibble) return 2 * byte_of(s.sub[i], r) + 1;
  return byte_of(s.sub[i], r);
}

// The float factor of row r.
template <typename T>
__device__ __forceinline__ float row_factor(const PieceScales<T>& s, int r) {
  if constexpr (T::kScales == Scales::kExponent) {
    // 2^(e - 128): below 2^-126 a subnormal.
    const int e = byte_of(s.sub[0], r);
    return __int_as_float(e > 1 ? (e - 1) << 23 : 0x00200000 << e);
  } else if constexpr (T::kGrid != 0) {
    return half_of(s.d, r) * T::kFactor;
  } else {
    return half_of(s.d, r);
  }
}

// What is added per unit of sum of an input's codes, without the sub-block's own factor.
template <typename T>
__device__ __forceinline__ float row_minimum(const PieceScales<T>& s, int r) {
  if constexpr (!T::kHasMin) return 0.0f;
  const float m = half_of(s.m, r);
  return T::kScales == Scales::kHalf ? m : -m;
}

}  // namespace spillway::cuda

// A packed matrix read by quads: the values of four neighbouring columns of a row. The layout is
// drawn in kernels/cpu/pack.h. For device kernels that dequantise; the CPU takes whole rows
// (unpack_row), which is also what the tests compare with: equal bits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/core/dispatch.h"
#include "kernels/core/half.h"
#include "kernels/core/host_device.h"
#include "kernels/core/packed_matrix.h"

namespace spillway {

// The planes of one row group, to be read.
struct PackedPlanes {
  const std::byte* codes;
  const std::byte* high;
  const std::byte* sub;
  const std::byte* scales;
  const std::byte* mins;
};

SPILLWAY_HOST_DEVICE inline PackedPlanes packed_planes(const std::byte* group,
                                                       const GroupLayout& layout) {
  return {group + layout.codes, group + layout.high, group + layout.sub, group + layout.scales,
          group + layout.mins};
}

namespace plane_bytes {

// Products and sums that are never contracted into one.
SPILLWAY_HOST_DEVICE inline float times(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}
SPILLWAY_HOST_DEVICE inline float plus(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fadd_rn(a, b);
#else
  return a + b;
#endif
}

// p on a multiple of T's size, as everything in a plane is.
template <typename T>
SPILLWAY_HOST_DEVICE T value_at(const std::byte* p) {
#if defined(__CUDA_ARCH__)
  return *reinterpret_cast<const T*>(p);
#else
  T value;
  std::memcpy(&value, p, sizeof(value));
  return value;
#endif
}
SPILLWAY_HOST_DEVICE inline int byte_at(const std::byte* p) { return static_cast<int>(*p); }

// What a plane of kBits has of quad q (0 to 7) of the piece (32 columns): a byte a column.
template <int kBits>
SPILLWAY_HOST_DEVICE uint32_t plane_bits(const std::byte* plane, int64_t piece, int lane, int q) {
  constexpr int kPerWord = 8 / kBits;  // quads that share a word
  constexpr uint32_t kMask = 0x01010101u * ((1u << kBits) - 1);
  // 4 bits: quads q and q + 4 share a word; 2 bits: four that follow each other; 1 bit: all.
  const int vector = kBits == 4 ? q % 4 : q / kPerWord;
  const int place = kBits == 4 ? q / 4 : q % kPerWord;
  const auto word = value_at<uint32_t>(plane + ((piece * kBits + vector) * kRowGroup + lane) * 4);
  return (word >> (kBits * place)) & kMask;
}

// Number k of the n of 6 bits.
template <int n>
SPILLWAY_HOST_DEVICE int six_bits(const std::byte* strips, int lane, int k) {
  const int low = byte_at(strips + k % (n / 2) * kRowGroup + lane);
  const int high = byte_at(strips + (n / 2 + k % (n / 4)) * kRowGroup + lane);
  return ((low >> (k < n / 2 ? 0 : 4)) & 15) | ((high >> (2 * (k / (n / 4)))) & 3) << 4;
}

// The table of a type as two words, so that it needs no memory.
template <typename Traits>
constexpr uint64_t table_half(int first) {
  uint64_t word = 0;
  for (int i = 0; i < 8; ++i) {
    word |= static_cast<uint64_t>(static_cast<uint8_t>(Traits::kValues[first + i])) << (8 * i);
  }
  return word;
}
template <typename Traits>
SPILLWAY_HOST_DEVICE int code_value(int code) {
  if constexpr (Traits::kTable) {
    constexpr uint64_t kLow = table_half<Traits>(0);
    constexpr uint64_t kHigh = table_half<Traits>(8);
    return static_cast<int8_t>((code < 8 ? kLow : kHigh) >> (8 * (code % 8)));
  } else {
    return code - Traits::kOffset;
  }
}

// 2^(e - 128), also where it is subnormal.
SPILLWAY_HOST_DEVICE inline float half_exponent(int e) {
  const uint32_t bits = e < 2 ? 0x00200000u << e : static_cast<uint32_t>(e - 1) << 23;
  return std::bit_cast<float>(bits);
}

// The scale and the minimum of a block's sub-block k.
struct ScaleAndMinimum {
  float scale;
  float minimum;
};
template <typename Traits>
SPILLWAY_HOST_DEVICE ScaleAndMinimum scales_at(const PackedPlanes& from, int64_t block, int lane,
                                               int k) {
  const std::byte* strips = from.sub + block * Traits::kSubBytes * kRowGroup;
  if constexpr (Traits::kScales == Scales::kExponent) {
    return {half_exponent(byte_at(strips + lane)), 0.0f};
  } else {
    const int64_t at = (block * kRowGroup + lane) * 2;
    const float d = f16_to_f32(value_at<uint16_t>(from.scales + at));
    float m = 0.0f;
    if constexpr (Traits::kHasMin) m = f16_to_f32(value_at<uint16_t>(from.mins + at));
    if constexpr (Traits::kScales == Scales::kHalf) return {d, m};
    if constexpr (Traits::kScales == Scales::kSixBit) {
      const int six = six_bits<static_cast<int>(Traits::kBlock / Traits::kSub)>(strips, lane, k);
      return {times(d, static_cast<float>(six - 32)), 0.0f};
    }
    if constexpr (Traits::kScales == Scales::kSixBitMin) {
      return {times(d, static_cast<float>(six_bits<16>(strips, lane, k))),
              -times(m, static_cast<float>(six_bits<16>(strips, lane, 8 + k)))};
    }
    const int byte = byte_at(strips + k * kRowGroup + lane);
    if constexpr (Traits::kScales == Scales::kSignedByte) {
      return {times(d, static_cast<float>(static_cast<int8_t>(byte))), 0.0f};
    } else {  // kFourBitMin
      return {times(d, static_cast<float>(byte & 15)), -times(m, static_cast<float>(byte >> 4))};
    }
  }
}

// 8 signs of 7 bits: the eighth makes their number even.
SPILLWAY_HOST_DEVICE inline int eight_signs(int seven) {
  int parity = seven ^ seven >> 4;
  parity ^= parity >> 2;
  parity ^= parity >> 1;
  return seven | (parity & 1) << 7;
}

// What a quad of a grid type is made of: the word of the grid, its 4 signs, the 4-bit scale.
struct GridQuad {
  int index;
  int signs;
  int scale;
};
template <QuantType Q>
SPILLWAY_HOST_DEVICE GridQuad grid_quad(const PackedPlanes& from, int64_t piece, int lane, int q) {
  using Traits = QuantTraits<Q>;
  const auto word = [&](const std::byte* plane, int64_t vector) {
    return value_at<uint32_t>(plane + (vector * kRowGroup + lane) * 4);
  };
  const int64_t block = piece / 8;
  const auto in_block = static_cast<int>(piece % 8);
  const auto strip = [&](int i) {
    return byte_at(from.sub + (block * Traits::kSubBytes + i) * kRowGroup + lane);
  };
  const auto nibble = [&](int first, int k) {
    return (strip(first + k / 2) >> (4 * (k % 2))) & 15;
  };
  const int eight = q / 2;  // of 8 values
  if constexpr (Q == QuantType::kIQ2_XXS) {
    const auto index = static_cast<int>((word(from.codes, piece) >> (8 * eight)) & 255);
    const uint32_t rest = word(from.high, piece);
    const int signs = eight_signs(static_cast<int>((rest >> (7 * eight)) & 127));
    return {2 * index + q % 2, signs >> (4 * (q % 2)), static_cast<int>(rest >> 28)};
  } else if constexpr (Q == QuantType::kIQ2_XS) {
    const uint32_t both = word(from.codes, 2 * piece + eight / 2) >> (16 * (eight % 2));
    const int signs = eight_signs(static_cast<int>((both >> 9) & 127));
    return {2 * static_cast<int>(both & 511) + q % 2, signs >> (4 * (q % 2)),
            nibble(0, 2 * in_block + q / 4)};
  } else if constexpr (Q == QuantType::kIQ2_S) {
    const auto low = static_cast<int>((word(from.codes, piece) >> (8 * eight)) & 255);
    const int index = low | ((strip(in_block) >> (2 * eight)) & 3) << 8;
    const auto signs = static_cast<int>((word(from.high, piece) >> (4 * q)) & 15);
    return {2 * index + q % 2, signs, nibble(8, 2 * in_block + q / 4)};
  } else {
    const auto low = static_cast<int>((word(from.codes, 2 * piece + q / 4) >> (8 * (q % 4))) & 255);
    const uint32_t signs = word(from.high, piece);
    if constexpr (Q == QuantType::kIQ3_XXS) {
      const int eight_of_them = eight_signs(static_cast<int>((signs >> (7 * eight)) & 127));
      return {low, eight_of_them >> (4 * (q % 2)), static_cast<int>(signs >> 28)};
    } else {
      static_assert(Q == QuantType::kIQ3_S);
      const int index = low | ((strip(in_block) >> q) & 1) << 8;
      return {index, static_cast<int>((signs >> (4 * q)) & 15), nibble(8, in_block)};
    }
  }
}

}  // namespace plane_bytes

// Columns 4 * quad ... 4 * quad + 3 of lane `lane` of the group; grid: the words of the type's grid
// (iq_grids.h), not read for other types. Not for plain floats: plain_at().
template <QuantType Q>
SPILLWAY_HOST_DEVICE void packed_quad(const PackedPlanes& from, int lane, int64_t quad,
                                      const uint32_t* grid, float (&out)[4]) {
  using Traits = QuantTraits<Q>;
  static_assert(Traits::kBits != 0);
  const int64_t piece = quad / 8;
  const auto q = static_cast<int>(quad % 8);
  constexpr int64_t kPieces = Traits::kBlock / 32;
  if constexpr (Traits::kGrid != 0) {
    const plane_bytes::GridQuad parts = plane_bytes::grid_quad<Q>(from, piece, lane, q);
    const uint32_t magnitudes = grid[parts.index];
    const int64_t at = (piece / kPieces * kRowGroup + lane) * 2;
    const float d = f16_to_f32(plane_bytes::value_at<uint16_t>(from.scales + at));
    const float scale = plane_bytes::times(
        plane_bytes::times(d, static_cast<float>(2 * parts.scale + 1)), Traits::kFactor);
    for (int i = 0; i < 4; ++i) {
      const auto magnitude = static_cast<int>((magnitudes >> (8 * i)) & 255);
      out[i] = plane_bytes::times(
          scale, static_cast<float>((parts.signs >> i) & 1 ? -magnitude : magnitude));
    }
  } else {
    uint32_t codes = plane_bytes::plane_bits<Traits::kLowBits>(from.codes, piece, lane, q);
    if constexpr (Traits::kHighBits > 0) {
      codes |= plane_bytes::plane_bits<Traits::kHighBits>(from.high, piece, lane, q)
               << Traits::kLowBits;
    }
    const auto in_block = static_cast<int>(quad % (Traits::kBlock / 4));
    const int k = in_block / static_cast<int>(Traits::kSub / 4);
    const plane_bytes::ScaleAndMinimum s =
        plane_bytes::scales_at<Traits>(from, piece / kPieces, lane, k);
    for (int i = 0; i < 4; ++i) {
      const int code = static_cast<int>((codes >> (8 * i)) & 255);
      out[i] =
          plane_bytes::times(s.scale, static_cast<float>(plane_bytes::code_value<Traits>(code)));
      if constexpr (Traits::kHasMin) out[i] = plane_bytes::plus(out[i], s.minimum);
    }
  }
}

// Column `col` of a plain type.
template <QuantType Q>
SPILLWAY_HOST_DEVICE float plain_at(const PackedPlanes& from, int lane, int64_t col) {
  using plane_bytes::value_at;
  const std::byte* at = from.codes + (col * kRowGroup + lane) * QuantTraits<Q>::kElementBytes;
  if constexpr (Q == QuantType::kF32) return value_at<float>(at);
  if constexpr (Q == QuantType::kF16) return f16_to_f32(value_at<uint16_t>(at));
  return bf16_to_f32(value_at<uint16_t>(at));
}

}  // namespace spillway

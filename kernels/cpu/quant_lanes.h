// Codes and scales of the packed types, brought into lanes: what the product of a quantised matrix
// reads besides activations. The layout is drawn in pack.h. Included by product_lanes.h only.
#pragma once

#include <cstdint>

#include "kernels/core/dispatch.h"
#include "kernels/core/packed_matrix.h"
#include "kernels/cpu/lanes.h"

namespace spillway::cpu::SPILLWAY_LANES {

// A table of values with the offset that makes them unsigned.
template <QuantType Q>
struct UnsignedTable {
  uint8_t entries[16];
  constexpr UnsignedTable() : entries() {
    for (int i = 0; i < 16; ++i) {
      entries[i] = static_cast<uint8_t>(QuantTraits<Q>::kValues[i] + QuantTraits<Q>::kOffset);
    }
  }
};
template <QuantType Q>
struct TableOf {
  alignas(16) static constexpr UnsignedTable<Q> kTable{};
};

// Quad q (columns 4q to 4q + 3) of 32 columns whose vectors begin at `codes` and `high`.
template <QuantType Q, int q>
inline Codes load_quad_codes(const uint8_t* codes, const uint8_t* high) {
  using Traits = QuantTraits<Q>;
  Codes c;
  if constexpr (Traits::kLowBits == 8) {
    c = load_codes(codes + 64 * q);
  } else if constexpr (Traits::kLowBits == 4) {
    c = bits_at < q < 4 ? 0 : 4, 15 > (load_codes(codes + 64 * (q % 4)));
  } else {
    c = bits_at<2 * (q % 4), 3>(load_codes(codes + 64 * (q / 4)));
  }
  if constexpr (Traits::kHighBits == 1) {
    c = with_bits<Traits::kLowBits - q, 1 << Traits::kLowBits>(c, load_codes(high));
  } else if constexpr (Traits::kHighBits == 2) {
    c = with_bits<4 - 2 * (q % 4), 0x30>(c, load_codes(high + 64 * (q / 4)));
  }
  if constexpr (Traits::kTable) c = look_up(TableOf<Q>::kTable.entries, c);
  return c;
}

// Sixteen numbers of 6 bits a row: strips of 16 bytes in `out`, one number each.
inline void unpack_six_bits(const uint8_t* strips, uint8_t* out) {
  const Codes a = load_codes(strips);
  const Codes b = load_codes(strips + 64);
  const Codes high = load_codes(strips + 128);
  store_codes(out, with_bits<4, 0x30>(bits_at<0, 15>(a), high));
  store_codes(out + 64, with_bits<2, 0x30>(bits_at<0, 15>(b), high));
  store_codes(out + 128, with_bits<0, 0x30>(bits_at<4, 15>(a), high));
  store_codes(out + 192, with_bits<-2, 0x30>(bits_at<4, 15>(b), high));
}

// Number k of eight of 6 bits a row.
inline I32x16 eighth_six_bits(const uint8_t* strips, int k) {
  const I32x16 nibbles = load_u8(strips + 16 * (k % 4));
  const I32x16 pairs = load_u8(strips + 64 + 16 * (k % 2));
  const I32x16 low = k < 4 ? bit_and(nibbles, splat_int(15)) : shift_right(nibbles, 4);
  const I32x16 high = bit_and(shift_right(pairs, 2 * (k / 2)), splat_int(3));
  return add(low, shift_left(high, 4));
}

// 2^(e - 128): half_power_of_two() of block_parts.h. The two subnormal ones are the smaller of two.
inline F32x16 half_power_of_two(I32x16 e) {
  const I32x16 normal = shift_left(sub(e, splat_int(1)), 23);
  const I32x16 up_to_two = sub(splat_int(2), max(sub(splat_int(1), e), splat_int(0)));
  return from_bits(max(normal, shift_left(up_to_two, 21)));
}

// A group's planes as the products read them.
struct PlanePointers {
  const uint8_t* codes;
  const uint8_t* high;
  const uint8_t* sub;
  const uint8_t* scales;
  const uint8_t* mins;

  PlanePointers() = default;
  PlanePointers(const std::byte* group, const GroupLayout& layout) {
    const auto* base = reinterpret_cast<const uint8_t*>(group);
    codes = base + layout.codes;
    high = base + layout.high;
    sub = base + layout.sub;
    scales = base + layout.scales;
    mins = base + layout.mins;
  }
};

template <QuantType Q>
inline F32x16 load_halves(const uint8_t* plane, int64_t b) {
  return load_f16(reinterpret_cast<const uint16_t*>(plane) + kRowGroup * b);
}

// A block's factors where sub-blocks have 32 values: one float each, and what is added to them
// times the sum of activations.
template <QuantType Q>
struct FloatScales {
  using Traits = QuantTraits<Q>;
  static constexpr int kSubs = Traits::kBlock / Traits::kSub;
  F32x16 scale[kSubs];
  F32x16 minimum[Traits::kHasMin ? kSubs : 1];

  void load(const PlanePointers& p, int64_t b) {
    const uint8_t* strips = p.sub + b * Traits::kSubBytes * kRowGroup;
    if constexpr (Traits::kScales == Scales::kExponent) {
      scale[0] = half_power_of_two(load_u8(strips));
    } else if constexpr (Traits::kScales == Scales::kHalf) {
      scale[0] = load_halves<Q>(p.scales, b);
      if constexpr (Traits::kHasMin) minimum[0] = load_halves<Q>(p.mins, b);
    } else if constexpr (Traits::kScales == Scales::kSixBitMin) {
      const F32x16 d = load_halves<Q>(p.scales, b);
      const F32x16 minus_m = sub(splat(0.0f), load_halves<Q>(p.mins, b));
      alignas(64) uint8_t six[256];
      unpack_six_bits(strips, six);
      for (int k = 0; k < kSubs; ++k) {
        scale[k] = mul(d, to_float(load_u8(six + 16 * k)));
        minimum[k] = mul(minus_m, to_float(load_u8(six + 128 + 16 * k)));
      }
    } else {
      static_assert(Traits::kScales == Scales::kSixBit);
      const F32x16 d = load_halves<Q>(p.scales, b);
      for (int k = 0; k < kSubs; ++k) {
        scale[k] = mul(d, to_float(sub(eighth_six_bits(strips, k), splat_int(32))));
      }
    }
  }
};

// A block's factors where sub-blocks have 16 values. There the small integers are multiplied with
// the integer dot products, two sub-blocks are added, and only then comes a float: half as many
// conversions. Nothing is lost: 2 * 128 * 16 * 32 * 127 (Q6_K) is below 2^24.
template <QuantType Q>
struct IntScales {
  using Traits = QuantTraits<Q>;
  F32x16 d;
  F32x16 minus_m;
  const uint8_t* strips;
  alignas(64) uint8_t six[Traits::kScales == Scales::kSixBit ? 256 : 1];

  void load(const PlanePointers& p, int64_t b) {
    d = load_halves<Q>(p.scales, b);
    if constexpr (Traits::kHasMin) minus_m = sub(splat(0.0f), load_halves<Q>(p.mins, b));
    strips = p.sub + b * Traits::kSubBytes * kRowGroup;
    if constexpr (Traits::kScales == Scales::kSixBit) unpack_six_bits(strips, six);
  }
  I32x16 scale(int k) const {
    if constexpr (Traits::kScales == Scales::kSignedByte) return load_i8(strips + 16 * k);
    if constexpr (Traits::kScales == Scales::kFourBitMin) {
      return bit_and(load_u8(strips + 16 * k), splat_int(15));
    }
    return sub(load_u8(six + 16 * k), splat_int(32));
  }
  I32x16 minimum(int k) const { return shift_right(load_u8(strips + 16 * k), 4); }
};

}  // namespace spillway::cpu::SPILLWAY_LANES

// One block of one row between its parts and the planes of a row group, both ways. The layout is
// drawn in pack.h. Called by pack.cc only.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/core/packed_matrix.h"
#include "kernels/cpu/block_parts.h"

namespace spillway::cpu {

inline constexpr int64_t kQuad = 4;                         // bytes a lane has in a vector
inline constexpr int64_t kVectorBytes = kQuad * kRowGroup;  // 64
inline constexpr int64_t kHalfRow = kRowGroup * 2;          // 16 f16

// A group's planes.
struct GroupPlanes {
  std::byte* codes;
  std::byte* high;
  std::byte* sub;
  std::byte* scales;
  std::byte* mins;
};

// The bytes that a lane has for 32 codes of kBits, 4 a vector; shift: the codes' bits from there
// on.
template <int kBits>
void codes_to_quads(const uint8_t* c, int shift, uint8_t* quads) {
  constexpr int kMask = (1 << kBits) - 1;
  const auto part = [&](int i) { return (c[i] >> shift) & kMask; };
  if constexpr (kBits == 8) {
    for (int i = 0; i < 32; ++i) quads[i] = c[i];
  } else if constexpr (kBits == 4) {
    for (int i = 0; i < 16; ++i) quads[i] = static_cast<uint8_t>(part(i) | part(i + 16) << 4);
  } else if constexpr (kBits == 2) {
    for (int i = 0; i < 8; ++i) {
      const int at = i < 4 ? i : 12 + i;
      quads[i] = static_cast<uint8_t>(part(at) | part(at + 4) << 2 | part(at + 8) << 4 |
                                      part(at + 12) << 6);
    }
  } else {
    static_assert(kBits == 1);
    for (int b = 0; b < 4; ++b) {
      int bits = 0;
      for (int q = 0; q < 8; ++q) bits |= part(4 * q + b) << q;
      quads[b] = static_cast<uint8_t>(bits);
    }
  }
}

// The other way: adds the bits at `shift` to the codes.
template <int kBits>
void quads_to_codes(const uint8_t* quads, int shift, uint8_t* c) {
  for (int i = 0; i < 32; ++i) {
    int value = 0;
    if constexpr (kBits == 8) value = quads[i];
    if constexpr (kBits == 4) value = (quads[i % 16] >> (4 * (i / 16))) & 15;
    if constexpr (kBits == 2) value = (quads[4 * (i / 16) + i % 4] >> (2 * (i % 16 / 4))) & 3;
    if constexpr (kBits == 1) value = (quads[i % 4] >> (i / 4)) & 1;
    c[i] = static_cast<uint8_t>(c[i] | value << shift);
  }
}

// A plane's vectors of 32 columns; lane's bytes in each.
template <int kBits>
void put_codes(const uint8_t* c, int shift, std::byte* vectors, int64_t lane) {
  uint8_t quads[4 * kBits];
  codes_to_quads<kBits>(c, shift, quads);
  for (int j = 0; j < kBits; ++j) {
    std::memcpy(vectors + j * kVectorBytes + lane * kQuad, quads + kQuad * j, kQuad);
  }
}
template <int kBits>
void get_codes(const std::byte* vectors, int64_t lane, int shift, uint8_t* c) {
  uint8_t quads[4 * kBits];
  for (int j = 0; j < kBits; ++j) {
    std::memcpy(quads + kQuad * j, vectors + j * kVectorBytes + lane * kQuad, kQuad);
  }
  quads_to_codes<kBits>(quads, shift, c);
}

// n numbers of 6 bits in strips of 16 bytes.
template <int n>
void put_six_bits(const uint8_t* six, std::byte* strips, int64_t lane) {
  for (int i = 0; i < n / 2; ++i) {
    strips[i * kRowGroup + lane] =
        static_cast<std::byte>((six[i] & 15) | (six[n / 2 + i] & 15) << 4);
  }
  for (int i = 0; i < n / 4; ++i) {
    int bits = 0;
    for (int s = 0; s < 4; ++s) bits |= (six[i + s * (n / 4)] >> 4) << (2 * s);
    strips[(n / 2 + i) * kRowGroup + lane] = static_cast<std::byte>(bits);
  }
}
template <int n>
void get_six_bits(const std::byte* strips, int64_t lane, uint8_t* six) {
  for (int i = 0; i < n; ++i) {
    const int low = std::to_integer<int>(strips[i % (n / 2) * kRowGroup + lane]);
    const int high = std::to_integer<int>(strips[(n / 2 + i % (n / 4)) * kRowGroup + lane]);
    six[i] = static_cast<uint8_t>(((low >> (i < n / 2 ? 0 : 4)) & 15) |
                                  ((high >> (2 * (i / (n / 4)))) & 3) << 4);
  }
}

template <typename Traits>
void put_sub_scales(const BlockParts& parts, std::byte* strips, int64_t lane) {
  if constexpr (Traits::kScales == Scales::kSixBitMin) {
    uint8_t six[16];
    std::memcpy(six, parts.sub, 8);
    std::memcpy(six + 8, parts.sub_min, 8);
    put_six_bits<16>(six, strips, lane);
  } else if constexpr (Traits::kScales == Scales::kSixBit) {
    put_six_bits<Traits::kBlock / Traits::kSub>(parts.sub, strips, lane);
  } else {
    for (int64_t k = 0; k < Traits::kSubBytes; ++k) {
      const int high = Traits::kScales == Scales::kFourBitMin ? parts.sub_min[k] << 4 : 0;
      strips[k * kRowGroup + lane] = static_cast<std::byte>(parts.sub[k] | high);
    }
  }
}
template <typename Traits>
void get_sub_scales(const std::byte* strips, int64_t lane, BlockParts& out) {
  if constexpr (Traits::kScales == Scales::kSixBitMin) {
    uint8_t six[16];
    get_six_bits<16>(strips, lane, six);
    std::memcpy(out.sub, six, 8);
    std::memcpy(out.sub_min, six + 8, 8);
  } else if constexpr (Traits::kScales == Scales::kSixBit) {
    get_six_bits<Traits::kBlock / Traits::kSub>(strips, lane, out.sub);
  } else {
    for (int64_t k = 0; k < Traits::kSubBytes; ++k) {
      const auto byte = std::to_integer<uint8_t>(strips[k * kRowGroup + lane]);
      out.sub[k] = Traits::kScales == Scales::kFourBitMin ? byte & 15 : byte;
      if constexpr (Traits::kScales == Scales::kFourBitMin) out.sub_min[k] = byte >> 4;
    }
  }
}

// Block b of lane `lane`.
template <typename Traits>
void put_block(const BlockParts& parts, const GroupPlanes& to, int64_t b, int64_t lane) {
  constexpr int64_t kPieces = Traits::kBlock / 32;
  for (int64_t i = 0; i < kPieces; ++i) {
    const uint8_t* codes = parts.codes + 32 * i;
    const int64_t piece = b * kPieces + i;
    put_codes<Traits::kLowBits>(codes, 0, to.codes + piece * Traits::kLowBits * kVectorBytes, lane);
    if constexpr (Traits::kHighBits > 0) {
      put_codes<Traits::kHighBits>(codes, Traits::kLowBits,
                                   to.high + piece * Traits::kHighBits * kVectorBytes, lane);
    }
  }
  put_sub_scales<Traits>(parts, to.sub + b * Traits::kSubBytes * kRowGroup, lane);
  if constexpr (Traits::kScales != Scales::kExponent) {
    std::memcpy(to.scales + b * kHalfRow + lane * 2, &parts.d, sizeof(parts.d));
  }
  if constexpr (Traits::kHasMin) {
    std::memcpy(to.mins + b * kHalfRow + lane * 2, &parts.m, sizeof(parts.m));
  }
}
template <typename Traits>
void get_block(const GroupPlanes& from, int64_t b, int64_t lane, BlockParts& out) {
  constexpr int64_t kPieces = Traits::kBlock / 32;
  std::memset(out.codes, 0, sizeof(out.codes));
  for (int64_t i = 0; i < kPieces; ++i) {
    uint8_t* codes = out.codes + 32 * i;
    const int64_t piece = b * kPieces + i;
    get_codes<Traits::kLowBits>(from.codes + piece * Traits::kLowBits * kVectorBytes, lane, 0,
                                codes);
    if constexpr (Traits::kHighBits > 0) {
      get_codes<Traits::kHighBits>(from.high + piece * Traits::kHighBits * kVectorBytes, lane,
                                   Traits::kLowBits, codes);
    }
  }
  get_sub_scales<Traits>(from.sub + b * Traits::kSubBytes * kRowGroup, lane, out);
  if constexpr (Traits::kScales != Scales::kExponent) {
    std::memcpy(&out.d, from.scales + b * kHalfRow + lane * 2, sizeof(out.d));
  }
  if constexpr (Traits::kHasMin) {
    std::memcpy(&out.m, from.mins + b * kHalfRow + lane * 2, sizeof(out.m));
  }
}

}  // namespace spillway::cpu

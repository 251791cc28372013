// A block as it lies in a GGUF file (on any byte), read as what a lane of a packed row group holds
// of it: words of codes and of high bits, bytes of sub-scales, halves. For the device's pack, where
// every thread makes words of its own; the CPU's pack takes whole blocks apart (block_parts.h) and
// is what the tests compare with. Where each bit lies: the block structs in quant.h; where it goes:
// kernels/cpu/pack.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/core/dispatch.h"
#include "kernels/core/host_device.h"

namespace spillway {

namespace file_bytes {

SPILLWAY_HOST_DEVICE inline uint32_t word_at(const uint8_t* p) {
  return static_cast<uint32_t>(p[0]) | static_cast<uint32_t>(p[1]) << 8 |
         static_cast<uint32_t>(p[2]) << 16 | static_cast<uint32_t>(p[3]) << 24;
}
SPILLWAY_HOST_DEVICE inline uint16_t half_at(const uint8_t* p) {
  return static_cast<uint16_t>(p[0] | p[1] << 8);
}

// Value i of 32 of 4 bits: byte i % 16.
SPILLWAY_HOST_DEVICE inline int nibble(const uint8_t* qs, int i) {
  return (qs[i % 16] >> (4 * (i / 16))) & 15;
}
// Of 256: byte 32c + j holds values 64c + j and 64c + 32 + j.
SPILLWAY_HOST_DEVICE inline int paired_nibble(const uint8_t* qs, int i) {
  return (qs[i / 64 * 32 + i % 32] >> (4 * (i / 32 % 2))) & 15;
}
// Bit i / 32 of byte i % 32.
SPILLWAY_HOST_DEVICE inline int strided_bit(const uint8_t* bits, int i) {
  return (bits[i % 32] >> (i / 32)) & 1;
}
// Two bits of 256 values, in halves of 128.
SPILLWAY_HOST_DEVICE inline int bit_pair(const uint8_t* qs, int i) {
  return (qs[i / 128 * 32 + i % 32] >> (2 * (i % 128 / 32))) & 3;
}

// The unsigned code of value i, as it is packed.
template <QuantType Q>
SPILLWAY_HOST_DEVICE int file_code(const uint8_t* block, int i) {
  using Block = typename QuantTraits<Q>::Block;
  const uint8_t* qs = nullptr;
  if constexpr (Q != QuantType::kQ6_K) qs = block + offsetof(Block, qs);
  if constexpr (Q == QuantType::kQ4_0 || Q == QuantType::kQ4_1 || Q == QuantType::kIQ4_NL ||
                Q == QuantType::kMXFP4) {
    return nibble(qs, i);
  } else if constexpr (Q == QuantType::kQ5_0 || Q == QuantType::kQ5_1) {
    const uint8_t* qh = block + offsetof(Block, qh);
    return nibble(qs, i) | ((qh[i / 8] >> (i % 8)) & 1) << 4;
  } else if constexpr (Q == QuantType::kQ8_0) {
    return qs[i] ^ 128;  // of two's complement: + 128
  } else if constexpr (Q == QuantType::kQ2_K) {
    return bit_pair(qs, i);
  } else if constexpr (Q == QuantType::kQ3_K) {
    return bit_pair(qs, i) | strided_bit(block + offsetof(Block, hmask), i) << 2;
  } else if constexpr (Q == QuantType::kQ4_K) {
    return paired_nibble(qs, i);
  } else if constexpr (Q == QuantType::kQ5_K) {
    return paired_nibble(qs, i) | strided_bit(block + offsetof(Block, qh), i) << 4;
  } else if constexpr (Q == QuantType::kIQ4_XS) {
    return nibble(qs + i / 32 * 16, i % 32);
  } else {
    static_assert(Q == QuantType::kQ6_K);
    const uint8_t* ql = block + offsetof(Block, ql);
    const int low = (ql[i / 128 * 64 + i % 64] >> (4 * (i / 64 % 2))) & 15;
    return low | bit_pair(block + offsetof(Block, qh), i) << 4;
  }
}

// Word `vector` of piece `piece` (32 values) of a plane of kBits, from bit `shift` of the codes on.
template <QuantType Q, int kBits>
SPILLWAY_HOST_DEVICE uint32_t plane_word(const uint8_t* block, int piece, int vector, int shift) {
  constexpr int kPerByte = 8 / kBits;
  constexpr int kMask = (1 << kBits) - 1;
  // Quads that share a word lie 16 values apart for 4 bits, else they follow each other.
  constexpr int kNextQuad = kBits == 4 ? 16 : 4;
  const int first = 32 * piece + (kBits == 4 ? 4 : 32 / kBits) * vector;
  uint32_t word = 0;
  for (int b = 0; b < 4; ++b) {
    for (int s = 0; s < kPerByte; ++s) {
      const int code = file_code<Q>(block, first + kNextQuad * s + b);
      word |= static_cast<uint32_t>((code >> shift) & kMask) << (8 * b + kBits * s);
    }
  }
  return word;
}

// Number k of a type with scales of 6 bits: Q4_K and Q5_K have their minimums after the scales.
template <QuantType Q>
SPILLWAY_HOST_DEVICE int six_bits(const uint8_t* block, int k) {
  using Block = typename QuantTraits<Q>::Block;
  if constexpr (Q == QuantType::kIQ4_XS) {
    const int low = (block[offsetof(Block, scales_l) + k / 2] >> (4 * (k % 2))) & 15;
    return low | ((half_at(block + offsetof(Block, scales_h)) >> (2 * k)) & 3) << 4;
  } else if constexpr (Q == QuantType::kQ3_K) {
    const uint8_t* scales = block + offsetof(Block, scales);
    const int low = (scales[k % 8] >> (4 * (k / 8))) & 15;
    return low | ((scales[8 + k % 4] >> (2 * (k / 4))) & 3) << 4;
  } else {
    const uint8_t* scales = block + offsetof(Block, scales);
    const int j = k % 8;
    const bool minimum = k >= 8;
    if (j < 4) return scales[j + (minimum ? 4 : 0)] & 63;
    const int low = (scales[4 + j] >> (minimum ? 4 : 0)) & 15;
    return low | (scales[j - (minimum ? 0 : 4)] >> 6) << 4;
  }
}

// Strip i of n numbers of 6 bits.
template <QuantType Q, int n>
SPILLWAY_HOST_DEVICE int six_bit_strip(const uint8_t* block, int i) {
  if (i < n / 2) {
    return (six_bits<Q>(block, i) & 15) | (six_bits<Q>(block, n / 2 + i) & 15) << 4;
  }
  int bits = 0;
  for (int s = 0; s < 4; ++s) {
    bits |= (six_bits<Q>(block, i - n / 2 + s * (n / 4)) >> 4) << (2 * s);
  }
  return bits;
}

// The upper bits of indices, one byte for 32 values, then the scales.
template <QuantType Q>
SPILLWAY_HOST_DEVICE int grid_strip(const uint8_t* block, int i) {
  using Block = typename QuantTraits<Q>::Block;
  if constexpr (Q == QuantType::kIQ2_S || Q == QuantType::kIQ3_S) {
    return block[i < 8 ? offsetof(Block, qh) + i : offsetof(Block, scales) + (i - 8)];
  } else if constexpr (Q == QuantType::kIQ2_XS) {
    return block[offsetof(Block, scales) + i];
  } else {
    return 0;  // no strips: the scales are among the signs
  }
}

}  // namespace file_bytes

// What a lane of a packed group has of a block. Word i of a plane goes to vector i of the block's.
template <QuantType Q>
struct FileBlock {
  using Traits = QuantTraits<Q>;
  static constexpr int kPieces = static_cast<int>(Traits::kBlock / 32);
  static constexpr int kCodeWords = kPieces * Traits::kLowBits;
  static constexpr int kHighWords = kPieces * Traits::kHighBits;
  static constexpr int kSubBytes = static_cast<int>(Traits::kSubBytes);
  static constexpr bool kHasScale = Traits::kScales != Scales::kExponent;
  static constexpr bool kHasMin = Traits::kHasMin;

  SPILLWAY_HOST_DEVICE static uint32_t code_word(const uint8_t* block, int i) {
    if constexpr (Traits::kGrid != 0) {
      // IQ2_XXS has indices and signs in turns; the others all indices at the front.
      constexpr int kStep = Q == QuantType::kIQ2_XXS ? 8 : 4;
      return file_bytes::word_at(block + offsetof(typename Traits::Block, qs) + kStep * i);
    } else {
      return file_bytes::plane_word<Q, Traits::kLowBits>(block, i / Traits::kLowBits,
                                                         i % Traits::kLowBits, 0);
    }
  }

  SPILLWAY_HOST_DEVICE static uint32_t high_word(const uint8_t* block, int i) {
    using Block = typename Traits::Block;
    if constexpr (Q == QuantType::kIQ2_XXS) {
      return file_bytes::word_at(block + offsetof(Block, qs) + 8 * i + 4);
    } else if constexpr (Q == QuantType::kIQ3_XXS) {
      return file_bytes::word_at(block + offsetof(Block, signs_and_scales) + 4 * i);
    } else if constexpr (Q == QuantType::kIQ2_S || Q == QuantType::kIQ3_S) {
      return file_bytes::word_at(block + offsetof(Block, signs) + 4 * i);
    } else if constexpr (kHighWords > 0) {
      return file_bytes::plane_word<Q, Traits::kHighBits>(block, i / Traits::kHighBits,
                                                          i % Traits::kHighBits, Traits::kLowBits);
    } else {
      return 0;
    }
  }

  SPILLWAY_HOST_DEVICE static uint8_t sub_byte(const uint8_t* block, int i) {
    using Block = typename Traits::Block;
    int byte = 0;
    if constexpr (Traits::kScales == Scales::kSixBitMin) {
      byte = file_bytes::six_bit_strip<Q, 16>(block, i);
    } else if constexpr (Traits::kScales == Scales::kSixBit) {
      byte =
          file_bytes::six_bit_strip<Q, static_cast<int>(Traits::kBlock / Traits::kSub)>(block, i);
    } else if constexpr (Traits::kScales == Scales::kOddNibble) {
      byte = file_bytes::grid_strip<Q>(block, i);
    } else if constexpr (Traits::kScales == Scales::kExponent) {
      byte = block[offsetof(Block, e)];
    } else if constexpr (Traits::kScales != Scales::kHalf) {
      byte = block[offsetof(Block, scales) + i];  // Q2_K, Q6_K: a byte is a strip
    }
    return static_cast<uint8_t>(byte);
  }

  SPILLWAY_HOST_DEVICE static uint16_t scale(const uint8_t* block) {
    if constexpr (kHasScale) {
      return file_bytes::half_at(block + offsetof(typename Traits::Block, d));
    } else {
      return 0;
    }
  }
  SPILLWAY_HOST_DEVICE static uint16_t minimum(const uint8_t* block) {
    if constexpr (kHasMin) {  // beside the scale
      return file_bytes::half_at(block + offsetof(typename Traits::Block, d) + 2);
    } else {
      return 0;
    }
  }
};

}  // namespace spillway

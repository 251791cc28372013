// From a run-time QuantType to a template argument: the one switch of the house. Called by
// everything that has a kernel per type; a new type is a QuantTraits and a line in dispatch().
// Never instantiates standard-library code: it is included by translation units that are compiled
// for one instruction set, and what they emit must not be shared with the others.
#pragma once

#include <cstdint>

#include "kernels/core/quant.h"

namespace spillway {

// How a block's scales are written: the sub-scales of a block of 256 values, if it has any.
enum class Scales {
  kNone,        // plain floats
  kHalf,        // an f16 a block of 32
  kExponent,    // a power of two a block of 32: MXFP4
  kSixBit,      // an f16 a block and 6-bit scales less 32
  kSixBitMin,   // f16 scale and minimum a block, 6-bit scales, then as many 6-bit minimums
  kFourBitMin,  // f16 scale and minimum a block, bytes of a scale (low nibble) and a minimum
  kSignedByte,  // an f16 a block and int8 scales
  kOddNibble,   // an f16 a block and 4-bit scales s that stand for 2s + 1
};

// What the kernels must know of a computable type.
//   Block          what lies in the file
//   kBlock         values a block, 1 for plain floats
//   kSub           values that share one scale: 32 or 16
//   kBits          bits of a code (0: the values are floats themselves), of which kLowBits lie in
//                  the packed plane of codes and kHighBits in the one of high bits
//   kOffset        what is subtracted from the unsigned code, or from the table's entry
//   kTable         the code is an index of table(), whose entries are unsigned
//   kGrid          0, or the values that an index of a grid stands for: 8 or 4
//   kScales        how scales are written
//   kHasMin        the block has a minimum that is added (Q4_1) or subtracted (K-quants)
//   kSubBytes      bytes of a block's sub-scales
//   kElementBytes  bytes of a plain float, else 0
template <QuantType Q>
struct QuantTraits;

namespace internal {

template <int kElementBytesIn>
struct PlainTraits {
  static constexpr int64_t kBlock = 1;
  static constexpr int64_t kSub = 32;
  static constexpr int kBits = 0;
  static constexpr int kLowBits = 0;
  static constexpr int kHighBits = 0;
  static constexpr int kOffset = 0;
  static constexpr bool kTable = false;
  static constexpr int kGrid = 0;
  static constexpr Scales kScales = Scales::kNone;
  static constexpr bool kHasMin = false;
  static constexpr int64_t kSubBytes = 0;
  static constexpr int kElementBytes = kElementBytesIn;
};

template <typename BlockIn, int kBitsIn, int kOffsetIn, bool kHasMinIn,
          Scales kScalesIn = Scales::kHalf, int64_t kBlockIn = 32, int64_t kSubIn = 32,
          int64_t kSubBytesIn = 0>
struct BlockTraits {
  using Block = BlockIn;
  static constexpr int64_t kBlock = kBlockIn;
  static constexpr int64_t kSub = kSubIn;
  static constexpr int kBits = kBitsIn;
  static constexpr int kLowBits = kBitsIn == 8 ? 8 : kBitsIn >= 4 ? 4 : 2;
  static constexpr int kHighBits = kBitsIn - kLowBits;
  static constexpr int kOffset = kOffsetIn;
  static constexpr bool kTable = false;
  static constexpr int kGrid = 0;
  static constexpr Scales kScales = kScalesIn;
  static constexpr bool kHasMin = kHasMinIn;
  static constexpr int64_t kSubBytes = kSubBytesIn;
  static constexpr int kElementBytes = 0;
  // Nothing of the file is lost and nothing added: codes, sub-scales, f16 scale and minimum.
  static constexpr int64_t kHalfBytes =
      (kScalesIn == Scales::kExponent ? 0 : 2) + (kHasMinIn ? 2 : 0);
  static_assert(kBlockIn * kBitsIn / 8 + kSubBytesIn + kHalfBytes == sizeof(BlockIn));
};

// Grids. A code is 64 + sign * magnitude; the planes hold indices, signs and scales as the file
// does. kIndexBits a value in the plane of codes, kSignBits in the one of high bits (0: they are
// beside the indices); kSharedSigns: 7 bits for 8 signs; kDivisor: of d * (2s + 1).
template <typename BlockIn, int kGridIn, int kIndexBits, int kSignBits, bool kSharedSignsIn,
          int64_t kSubIn, int64_t kSubBytesIn, int kDivisorIn>
struct GridTraits : BlockTraits<BlockIn, kIndexBits + kSignBits, 64, false, Scales::kOddNibble, 256,
                                kSubIn, kSubBytesIn> {
  static constexpr int kLowBits = kIndexBits;
  static constexpr int kHighBits = kSignBits;
  static constexpr int kGrid = kGridIn;
  static constexpr bool kSharedSigns = kSharedSignsIn;
  static constexpr float kFactor = 1.0f / kDivisorIn;
};

// Aborts, naming the type: somebody asked the kernels to compute with what they cannot.
[[noreturn]] void type_not_computable(QuantType type);

}  // namespace internal

template <>
struct QuantTraits<QuantType::kF32> : internal::PlainTraits<4> {};
template <>
struct QuantTraits<QuantType::kF16> : internal::PlainTraits<2> {};
template <>
struct QuantTraits<QuantType::kBF16> : internal::PlainTraits<2> {};
template <>
struct QuantTraits<QuantType::kQ4_0> : internal::BlockTraits<BlockQ4_0, 4, 8, false> {};
template <>
struct QuantTraits<QuantType::kQ4_1> : internal::BlockTraits<BlockQ4_1, 4, 0, true> {};
template <>
struct QuantTraits<QuantType::kQ5_0> : internal::BlockTraits<BlockQ5_0, 5, 16, false> {};
template <>
struct QuantTraits<QuantType::kQ5_1> : internal::BlockTraits<BlockQ5_1, 5, 0, true> {};
// Packed as code + 128, so that all packed codes are unsigned.
template <>
struct QuantTraits<QuantType::kQ8_0> : internal::BlockTraits<BlockQ8_0, 8, 128, false> {};
template <>
struct QuantTraits<QuantType::kQ2_K>
    : internal::BlockTraits<BlockQ2_K, 2, 0, true, Scales::kFourBitMin, 256, 16, 16> {};
template <>
struct QuantTraits<QuantType::kQ3_K>
    : internal::BlockTraits<BlockQ3_K, 3, 4, false, Scales::kSixBit, 256, 16, 12> {};
template <>
struct QuantTraits<QuantType::kQ4_K>
    : internal::BlockTraits<BlockQ4_K, 4, 0, true, Scales::kSixBitMin, 256, 32, 12> {};
template <>
struct QuantTraits<QuantType::kQ5_K>
    : internal::BlockTraits<BlockQ5_K, 5, 0, true, Scales::kSixBitMin, 256, 32, 12> {};
template <>
struct QuantTraits<QuantType::kQ6_K>
    : internal::BlockTraits<BlockQ6_K, 6, 32, false, Scales::kSignedByte, 256, 16, 16> {};

// Types whose codes are indices. The tables are stored with an offset that makes them unsigned:
// entry + kOffset.
template <>
struct QuantTraits<QuantType::kIQ4_NL> : internal::BlockTraits<BlockIQ4_NL, 4, 128, false> {
  static constexpr bool kTable = true;
  static constexpr const int8_t (&kValues)[16] = kNonlinearValues;
};
template <>
struct QuantTraits<QuantType::kIQ4_XS>
    : internal::BlockTraits<BlockIQ4_XS, 4, 128, false, Scales::kSixBit, 256, 32, 6> {
  static constexpr bool kTable = true;
  static constexpr const int8_t (&kValues)[16] = kNonlinearValues;
};
template <>
struct QuantTraits<QuantType::kMXFP4>
    : internal::BlockTraits<BlockMXFP4, 4, 12, false, Scales::kExponent, 32, 32, 1> {
  static constexpr bool kTable = true;
  static constexpr const int8_t (&kValues)[16] = kFp4Values;
};

template <>
struct QuantTraits<QuantType::kIQ2_XXS>
    : internal::GridTraits<BlockIQ2_XXS, 8, 1, 1, true, 32, 0, 8> {};
template <>
struct QuantTraits<QuantType::kIQ2_XS>
    : internal::GridTraits<BlockIQ2_XS, 8, 2, 0, true, 16, 8, 8> {};
template <>
struct QuantTraits<QuantType::kIQ2_S>
    : internal::GridTraits<BlockIQ2_S, 8, 1, 1, false, 16, 16, 8> {};
template <>
struct QuantTraits<QuantType::kIQ3_XXS>
    : internal::GridTraits<BlockIQ3_XXS, 4, 2, 1, true, 32, 0, 4> {};
template <>
struct QuantTraits<QuantType::kIQ3_S>
    : internal::GridTraits<BlockIQ3_S, 4, 2, 1, false, 32, 12, 1> {};

// A type as a value: dispatch's body reads `decltype(tag)::kType`.
template <QuantType Q>
struct QuantTag {
  static constexpr QuantType kType = Q;
  using Traits = QuantTraits<Q>;
};

// body(QuantTag<type>{}). A type that is not computable is a bug.
template <typename Body>
auto dispatch(QuantType type, Body&& body) {
  switch (type) {
#define SPILLWAY_CASE(name) \
  case QuantType::name:     \
    return body(QuantTag<QuantType::name>{});
    SPILLWAY_CASE(kF32)
    SPILLWAY_CASE(kF16)
    SPILLWAY_CASE(kBF16)
    SPILLWAY_CASE(kQ4_0)
    SPILLWAY_CASE(kQ4_1)
    SPILLWAY_CASE(kQ5_0)
    SPILLWAY_CASE(kQ5_1)
    SPILLWAY_CASE(kQ8_0)
    SPILLWAY_CASE(kQ2_K)
    SPILLWAY_CASE(kQ3_K)
    SPILLWAY_CASE(kQ4_K)
    SPILLWAY_CASE(kQ5_K)
    SPILLWAY_CASE(kQ6_K)
    SPILLWAY_CASE(kIQ4_NL)
    SPILLWAY_CASE(kIQ4_XS)
    SPILLWAY_CASE(kMXFP4)
    SPILLWAY_CASE(kIQ2_XXS)
    SPILLWAY_CASE(kIQ2_XS)
    SPILLWAY_CASE(kIQ2_S)
    SPILLWAY_CASE(kIQ3_XXS)
    SPILLWAY_CASE(kIQ3_S)
#undef SPILLWAY_CASE
    default:
      internal::type_not_computable(type);
  }
}

}  // namespace spillway

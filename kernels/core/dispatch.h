// From a run-time QuantType to a template argument: the one switch of the house. Called by
// everything that has a kernel per type; a new type is a QuantTraits and a line in dispatch().
// Never instantiates standard-library code: it is included by translation units that are compiled
// for one instruction set, and what they emit must not be shared with the others.
#pragma once

#include <cstdint>

#include "kernels/core/quant.h"

namespace spillway {

// What the kernels must know of a computable type.
//   Block          what lies in the file
//   kBlock         values a block, 1 for plain floats
//   kBits          bits of a code (0: the values are floats themselves)
//   kOffset        what is subtracted from the unsigned code
//   kHasMin        the block has a minimum that is added
//   kElementBytes  bytes of a plain float, else 0
template <QuantType Q>
struct QuantTraits;

namespace internal {

template <int kElementBytesIn>
struct PlainTraits {
  static constexpr int64_t kBlock = 1;
  static constexpr int kBits = 0;
  static constexpr int kOffset = 0;
  static constexpr bool kHasMin = false;
  static constexpr int kElementBytes = kElementBytesIn;
};

template <typename BlockIn, int kBitsIn, int kOffsetIn, bool kHasMinIn>
struct BlockTraits {
  using Block = BlockIn;
  static constexpr int64_t kBlock = 32;
  static constexpr int kBits = kBitsIn;
  static constexpr int kOffset = kOffsetIn;
  static constexpr bool kHasMin = kHasMinIn;
  static constexpr int kElementBytes = 0;
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
    case QuantType::kF32:
      return body(QuantTag<QuantType::kF32>{});
    case QuantType::kF16:
      return body(QuantTag<QuantType::kF16>{});
    case QuantType::kBF16:
      return body(QuantTag<QuantType::kBF16>{});
    case QuantType::kQ4_0:
      return body(QuantTag<QuantType::kQ4_0>{});
    case QuantType::kQ4_1:
      return body(QuantTag<QuantType::kQ4_1>{});
    case QuantType::kQ5_0:
      return body(QuantTag<QuantType::kQ5_0>{});
    case QuantType::kQ5_1:
      return body(QuantTag<QuantType::kQ5_1>{});
    case QuantType::kQ8_0:
      return body(QuantTag<QuantType::kQ8_0>{});
    default:
      internal::type_not_computable(type);
  }
}

}  // namespace spillway

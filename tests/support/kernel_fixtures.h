// What the kernel tests share: instruction sets to try, random matrices as a GGUF file would hold
// them, packed matrices that own their memory, and activations with their codes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "kernels/core/arena.h"
#include "kernels/core/dispatch.h"
#include "kernels/core/half.h"
#include "kernels/cpu/ops.h"

namespace spillway::kernel_test {

inline const std::vector<QuantType>& computable_types() {
  using enum QuantType;
  static const std::vector<QuantType> types = {
      kF32,  kF16,  kBF16,   kQ4_0,   kQ4_1,  kQ5_0,    kQ5_1,   kQ8_0,  kQ2_K,    kQ3_K, kQ4_K,
      kQ5_K, kQ6_K, kIQ4_NL, kIQ4_XS, kMXFP4, kIQ2_XXS, kIQ2_XS, kIQ2_S, kIQ3_XXS, kIQ3_S};
  return types;
}

// All that this processor can run, scalar first.
inline std::vector<cpu::Isa> available_isas() {
  std::vector<cpu::Isa> isas;
  for (int i = 0; i <= static_cast<int>(cpu::best_isa()); ++i) {
    isas.push_back(static_cast<cpu::Isa>(i));
  }
  return isas;
}

inline std::vector<float> random_floats(std::mt19937& random, int64_t n, float spread = 1.0f) {
  std::normal_distribution<float> normal(0.0f, spread);
  std::vector<float> values(static_cast<size_t>(n));
  for (float& value : values) value = normal(random);
  return values;
}

// Where the half floats of a block lie: behind the codes in the oldest K-quants.
inline size_t half_offset(QuantType type) {
  if (type == QuantType::kQ2_K) return offsetof(BlockQ2_K, d);
  if (type == QuantType::kQ3_K) return offsetof(BlockQ3_K, d);
  if (type == QuantType::kQ6_K) return offsetof(BlockQ6_K, d);
  return 0;
}

inline size_t half_bytes(QuantType type) {
  if (type == QuantType::kMXFP4) return 1;
  return dispatch(type, [](auto tag) -> size_t { return decltype(tag)::Traits::kHasMin ? 4 : 2; });
}

// Rows of a tensor as they lie in a file: random codes, scales of ordinary size and either sign.
inline std::vector<std::byte> random_file_rows(std::mt19937& random, QuantType type, int64_t rows,
                                               int64_t cols) {
  std::vector<std::byte> bytes(static_cast<size_t>(rows * quant_bytes(type, cols)));
  for (std::byte& b : bytes) b = static_cast<std::byte>(random() & 255u);
  std::normal_distribution<float> normal(0.0f, 0.05f);
  const auto put_half = [&](std::byte* at) {
    const uint16_t half = f32_to_f16(normal(random));
    std::memcpy(at, &half, sizeof(half));
  };
  dispatch(type, [&](auto tag) {
    using Traits = typename decltype(tag)::Traits;
    constexpr QuantType kType = decltype(tag)::kType;
    if constexpr (Traits::kBits != 0) {
      // Small integers under it take the scale of a block of 256 further from the values.
      const size_t d = half_offset(kType);
      for (size_t at = 0; at < bytes.size(); at += sizeof(typename Traits::Block)) {
        if constexpr (kType == QuantType::kMXFP4) {
          bytes[at] = static_cast<std::byte>(118 + random() % 8);
        } else {
          put_half(&bytes[at + d]);
          if constexpr (Traits::kHasMin) put_half(&bytes[at + d + 2]);
        }
      }
    } else {
      for (size_t at = 0; at < bytes.size(); at += Traits::kElementBytes) {
        const float value = normal(random);
        const uint16_t brain = static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16);
        if constexpr (kType == QuantType::kF32) std::memcpy(&bytes[at], &value, 4);
        if constexpr (kType == QuantType::kF16) put_half(&bytes[at]);
        if constexpr (kType == QuantType::kBF16) std::memcpy(&bytes[at], &brain, 2);
      }
    }
  });
  return bytes;
}

// A packed matrix with its memory, and the file rows it came from.
struct Weights {
  QuantType type;
  int64_t rows;
  int64_t cols;
  std::vector<std::byte> file;
  std::unique_ptr<Arena> arena;
  PackedMatrix packed;

  // Columns [begin, end) of the same file rows, packed apart.
  Weights columns(const cpu::Exec& exec, Range range) const {
    Weights part{type, rows, range.size(), {}, nullptr, {}};
    const int64_t bytes = packed_bytes(type, rows, range.size());
    part.arena = std::make_unique<Arena>("test weights", bytes);
    part.packed = {type, rows, range.size(), part.arena->take(bytes)};
    cpu::pack(exec, {type, rows, cols, file.data()}, {0, rows}, range, part.packed, 0);
    return part;
  }

  std::vector<float> dequantized() const {
    std::vector<float> values(static_cast<size_t>(rows * cols));
    cpu::dequantize(type, file.data(), values);
    return values;
  }
};

inline Weights random_weights(const cpu::Exec& exec, std::mt19937& random, QuantType type,
                              int64_t rows, int64_t cols) {
  Weights weights{type, rows, cols, random_file_rows(random, type, rows, cols), nullptr, {}};
  Weights whole = weights.columns(exec, {0, cols});
  weights.arena = std::move(whole.arena);
  weights.packed = whole.packed;
  return weights;
}

// Activations with their codes. Columns past the last whole block of 32 have no codes: such inputs
// are for plain floats only.
struct Inputs {
  int64_t n;
  int64_t cols;
  std::vector<float> x;
  std::vector<int8_t> q8;
  std::vector<float> scale;
  std::vector<int32_t> sum;

  Inputs(const cpu::Exec& exec, int64_t n_in, int64_t cols_in, std::vector<float> values)
      : n(n_in), cols(cols_in), x(std::move(values)) {
    q8.resize(x.size() + 1);
    scale.resize(x.size() / 32 + 1);
    sum.resize(x.size() / 16 + 1);
    if (cols % 32 == 0) cpu::quantize_rows(exec, view());
  }

  cpu::Activations view() { return columns({0, cols}); }
  // Columns of the same codes, as a rank that holds a part of the columns sees them.
  cpu::Activations columns(Range range) {
    const int64_t blocks = cols / 32;
    const int64_t first = range.begin / 32;
    const int64_t n_blocks = range.size() / 32;
    return {View2D<const float>(x.data() + range.begin, n, range.size(), cols),
            View2D<int8_t>(q8.data() + range.begin, n, range.size(), cols),
            View2D<float>(scale.data() + first, n, n_blocks, blocks),
            View2D<int32_t>(sum.data() + 2 * first, n, 2 * n_blocks, 2 * blocks)};
  }
};

// Bits, so that -0 differs from 0 and a NaN equals itself.
inline std::vector<uint32_t> bits(std::span<const float> values) {
  std::vector<uint32_t> out;
  for (const float value : values) out.push_back(std::bit_cast<uint32_t>(value));
  return out;
}
inline std::vector<uint64_t> bits(std::span<const double> values) {
  std::vector<uint64_t> out;
  for (const double value : values) out.push_back(std::bit_cast<uint64_t>(value));
  return out;
}

}  // namespace spillway::kernel_test

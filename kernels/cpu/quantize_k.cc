// See quantize_k.h. This file lays sixteen sub-blocks side by side, weighs their values, has them
// searched (block_search_lanes.h), and writes the blocks.
#include "kernels/cpu/quantize_k.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/cpu/block_assemble.h"
#include "kernels/cpu/block_search.h"
#include "kernels/cpu/kernel_table.h"

namespace spillway::cpu {
namespace {

// How much the error of a value counts. Without a record of activations there is only the weight
// itself to go by, and large ones are more likely to matter.
enum class Importance {
  kSquare,     // x^2
  kMagnitude,  // |x| + the root mean square of the sub-block
};

template <QuantType Q>
struct Searched;  // Block, kShape, kImportance, kSubOffset: stored sub-scale less the real one

template <>
struct Searched<QuantType::kQ2_K> {
  using Block = BlockQ2_K;
  static constexpr SearchShape kShape{16, true, 16, CodeGrid::kUniform, 0, 3, 0, 15};
  static constexpr Importance kImportance = Importance::kMagnitude;
  static constexpr int kSubOffset = 0;
};
template <>
struct Searched<QuantType::kQ3_K> {
  using Block = BlockQ3_K;
  static constexpr SearchShape kShape{16, false, 16, CodeGrid::kUniform, -4, 3, -32, 31};
  static constexpr Importance kImportance = Importance::kMagnitude;
  static constexpr int kSubOffset = 32;
};
template <>
struct Searched<QuantType::kQ4_K> {
  using Block = BlockQ4_K;
  static constexpr SearchShape kShape{32, true, 8, CodeGrid::kUniform, 0, 15, 0, 63};
  static constexpr Importance kImportance = Importance::kMagnitude;
  static constexpr int kSubOffset = 0;
};
template <>
struct Searched<QuantType::kQ5_K> {
  using Block = BlockQ5_K;
  static constexpr SearchShape kShape{32, true, 8, CodeGrid::kUniform, 0, 31, 0, 63};
  static constexpr Importance kImportance = Importance::kMagnitude;
  static constexpr int kSubOffset = 0;
};
template <>
struct Searched<QuantType::kQ6_K> {
  using Block = BlockQ6_K;
  static constexpr SearchShape kShape{16, false, 16, CodeGrid::kUniform, -32, 31, -128, 127};
  static constexpr Importance kImportance = Importance::kSquare;
  static constexpr int kSubOffset = 0;
};
template <>
struct Searched<QuantType::kIQ4_NL> {
  using Block = BlockIQ4_NL;
  static constexpr SearchShape kShape{32, false, 1, CodeGrid::kNonlinear, 0, 15, 1, 1};
  static constexpr Importance kImportance = Importance::kMagnitude;
  static constexpr int kSubOffset = 0;
};
template <>
struct Searched<QuantType::kIQ4_XS> {
  using Block = BlockIQ4_XS;
  static constexpr SearchShape kShape{32, false, 8, CodeGrid::kNonlinear, 0, 15, -32, 31};
  static constexpr Importance kImportance = Importance::kMagnitude;
  static constexpr int kSubOffset = 32;
};

template <typename Body>
void dispatch_searched(QuantType type, const Body& body) {
  switch (type) {
    case QuantType::kQ2_K:
      return body(Searched<QuantType::kQ2_K>{});
    case QuantType::kQ3_K:
      return body(Searched<QuantType::kQ3_K>{});
    case QuantType::kQ4_K:
      return body(Searched<QuantType::kQ4_K>{});
    case QuantType::kQ5_K:
      return body(Searched<QuantType::kQ5_K>{});
    case QuantType::kQ6_K:
      return body(Searched<QuantType::kQ6_K>{});
    case QuantType::kIQ4_NL:
      return body(Searched<QuantType::kIQ4_NL>{});
    case QuantType::kIQ4_XS:
      return body(Searched<QuantType::kIQ4_XS>{});
    default:
      CHECK(false);
  }
}

// Sixteen sub-blocks, values of one index side by side.
struct Batch {
  alignas(64) float x[kMaxSubValues * kSearchLanes];
  alignas(64) float weight[kMaxSubValues * kSearchLanes];
};

// `lanes` of them from x; the rest are zeros, which cost nothing and are not written.
void fill(const SearchShape& shape, Importance importance, const float* x, int lanes,
          Batch& batch) {
  for (int k = 0; k < kSearchLanes; ++k) {
    float sum = 0;
    for (int i = 0; i < shape.n; ++i) {
      const float value = k < lanes ? x[shape.n * k + i] : 0.0f;
      const float kept = std::clamp(value, -kLargestValue, kLargestValue);
      batch.x[kSearchLanes * i + k] = kept;
      sum += kept * kept;
    }
    const float root = std::sqrt(sum / static_cast<float>(shape.n));
    for (int i = 0; i < shape.n; ++i) {
      const float value = batch.x[kSearchLanes * i + k];
      batch.weight[kSearchLanes * i + k] =
          importance == Importance::kSquare ? value * value : std::fabs(value) + root;
    }
  }
}

// Block `index` of the batch.
void parts_of(const SearchShape& shape, int sub_offset, const SearchResult& found, int index,
              BlockParts& parts) {
  const int first = index * shape.lanes_per_block;
  for (int k = 0; k < shape.lanes_per_block; ++k) {
    for (int i = 0; i < shape.n; ++i) {
      parts.codes[shape.n * k + i] = found.codes[kSearchLanes * i + first + k];
    }
    parts.sub[k] = static_cast<uint8_t>(found.sub[first + k] + sub_offset);
    parts.sub_min[k] = static_cast<uint8_t>(found.sub_min[first + k]);
  }
  parts.d = found.d[index];
  parts.m = found.m[index];
}

}  // namespace

bool is_searched(QuantType type) {
  using enum QuantType;
  return type == kQ2_K || type == kQ3_K || type == kQ4_K || type == kQ5_K || type == kQ6_K ||
         type == kIQ4_NL || type == kIQ4_XS;
}

// The greatest f16 times the greatest sub-scale times the greatest factor on the narrower side;
// less where the search cuts its input.
float largest_searched_value(QuantType type) {
  float largest = 0;
  dispatch_searched(type, [&](auto facts) {
    const SearchShape& shape = facts.kShape;
    const float factor = shape.grid == CodeGrid::kNonlinear ? 113.0f
                         : shape.has_minimum ? 1.0f  // the minimum alone: no code is negative
                                             : static_cast<float>(shape.last_code);
    largest = std::min(kLargestValue, 65504.0f * static_cast<float>(shape.last_sub) * factor);
  });
  return largest;
}

void quantize_searched(Isa isa, QuantType type, const float* x, int64_t n, std::byte* out) {
  dispatch_searched(type, [&](auto facts) {
    using Facts = decltype(facts);
    constexpr SearchShape kShape = Facts::kShape;
    constexpr int64_t kBlockValues = kShape.n * kShape.lanes_per_block;
    constexpr int64_t kBatchBlocks = kSearchLanes / kShape.lanes_per_block;
    const auto search = kernel_table(isa).search_blocks;
    const int64_t n_blocks = n / kBlockValues;
    Batch batch;
    SearchResult found;
    for (int64_t b = 0; b < n_blocks; b += kBatchBlocks) {
      const int64_t here = std::min(kBatchBlocks, n_blocks - b);
      fill(kShape, Facts::kImportance, x + b * kBlockValues,
           static_cast<int>(here) * kShape.lanes_per_block, batch);
      search({batch.x, batch.weight}, kShape, &found);
      for (int64_t i = 0; i < here; ++i) {
        BlockParts parts;
        parts_of(kShape, Facts::kSubOffset, found, static_cast<int>(i), parts);
        typename Facts::Block block;
        put_together(parts, block);
        std::memcpy(out + (b + i) * static_cast<int64_t>(sizeof(block)), &block, sizeof(block));
      }
    }
  });
}

}  // namespace spillway::cpu

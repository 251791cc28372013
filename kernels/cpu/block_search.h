// What the searches for K-quants' scales take and give: sixteen sub-blocks at once, one a lane.
// Written once over the lanes of every instruction set (block_search_lanes.h), called through
// kernel_table(isa) by quantize_k.cc alone. Plain structs, no code: see lanes.h.
#pragma once

#include <cstdint>

namespace spillway::cpu {

inline constexpr int kSearchLanes = 16;
inline constexpr int kMaxSubValues = 32;

// How codes become factors of a scale.
enum class CodeGrid {
  kUniform,    // the code less an offset: first_code, first_code + 1, ...
  kNonlinear,  // kNonlinearValues[code]
};

// Facts of the type that is searched for.
struct SearchShape {
  int n = 0;  // values of a sub-block: 16 or 32
  bool has_minimum = false;
  int lanes_per_block = 0;  // sub-blocks under one pair of half floats: 16, 8 or 1
  CodeGrid grid = CodeGrid::kUniform;
  int first_code = 0;  // least and greatest factor of kUniform
  int last_code = 0;
  int first_sub = 0;  // least and greatest sub-scale; both 1 when there is none
  int last_sub = 0;
};

// Sixteen sub-blocks. Value i of lane k lies at 16 * i + k. Values are finite, at most
// kLargestValue in magnitude; weights are finite and not negative.
inline constexpr float kLargestValue = 3e8f;
struct SearchInput {
  const float* x = nullptr;
  const float* weight = nullptr;
};

// Lane k belongs to block k / lanes_per_block, whose half floats are d and m of that index.
struct SearchResult {
  uint8_t codes[kMaxSubValues * kSearchLanes];  // value i of lane k at 16 * i + k, from 0 on
  int16_t sub[kSearchLanes];
  int16_t sub_min[kSearchLanes];
  uint16_t d[kSearchLanes];  // f16
  uint16_t m[kSearchLanes];
};

}  // namespace spillway::cpu

// Integer arithmetic that sizes need. All of it int64_t: counts that are multiplied overflow int.
#pragma once

#include <cstdint>
#include <numeric>

#include "kernels/core/check.h"

namespace spillway {

constexpr int64_t div_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return div_up(a, b) * b; }

// a / b where b must divide a; anything else is a bug.
inline int64_t div_exact(int64_t a, int64_t b) {
  CHECK_EQ(a % b, 0);
  return a / b;
}

// [begin, end) of rows, columns, heads or layers.
struct Range {
  int64_t begin = 0;
  int64_t end = 0;
  constexpr int64_t size() const { return end - begin; }
  constexpr bool empty() const { return end <= begin; }
  constexpr bool operator==(const Range&) const = default;
};

}  // namespace spillway

// hash_rows: reads 4 bytes a value, from cache where it follows a sum. A debugging aid, one thread
// a part of the rows.
#include "kernels/core/row_hash.h"

#include <atomic>
#include <bit>

#include "kernels/cpu/ops.h"
#include "kernels/cpu/parallel.h"

namespace spillway::cpu {

uint64_t hash_rows(const Exec& exec, View2D<const float> x, std::span<const int64_t> slots) {
  CHECK(slots.empty() || static_cast<int64_t>(slots.size()) == x.rows);
  std::atomic<uint64_t> sum{0};
  parallel_for(exec, x.rows, x.rows * x.cols, [&](Range rows) {
    uint64_t mine = 0;
    for (int64_t r = rows.begin; r < rows.end; ++r) {
      if (!slots.empty() && slots[static_cast<size_t>(r)] < 0) continue;
      const std::span<const float> row = x.row(r);
      for (int64_t c = 0; c < x.cols; ++c) {
        mine += value_hash(static_cast<uint64_t>(r * x.cols + c),
                           std::bit_cast<uint32_t>(row[static_cast<size_t>(c)]));
      }
    }
    sum += mine;
  });
  return sum;
}

}  // namespace spillway::cpu

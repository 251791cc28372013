// embed: one row of the table per token. Reads the row's codes (strided by 64 bytes, once a token)
// and writes 8 bytes a value; tens of microseconds a step, so it has no ISA kernel.
#include <algorithm>

#include "kernels/cpu/ops.h"
#include "kernels/cpu/pack.h"
#include "kernels/cpu/parallel.h"

namespace spillway::cpu {

void embed(const Exec& exec, const PackedMatrix& table, std::span<const int32_t> tokens,
           int64_t first_row, View2D<double> out) {
  const auto n = static_cast<int64_t>(tokens.size());
  CHECK_EQ(out.rows, n);
  CHECK_EQ(out.cols, table.cols);
  parallel_for(exec, n, n * table.cols, [&](Range part) {
    for (int64_t i = part.begin; i < part.end; ++i) {
      const int64_t row = tokens[static_cast<size_t>(i)] - first_row;
      const std::span<double> to = out.row(i);
      if (row >= 0 && row < table.rows) {
        unpack_row(table, row, to);
      } else {
        std::fill(to.begin(), to.end(), 0.0);
      }
    }
  });
}

}  // namespace spillway::cpu

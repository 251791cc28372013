// rope: plain multiplications and additions, never fused (-ffp-contract=off), so every processor
// gives the same bits without ISA kernels. Moves 8 bytes a value (read and write in place) plus the
// table; under 1 % of a step.
#include "kernels/core/int_math.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/parallel.h"

namespace spillway::cpu {
namespace {

// Pair i is (x[first*i], x[first*i + distance]).
void rotate(float* x, const float* cos, const float* sin, int64_t n_pairs, int64_t first,
            int64_t distance) {
  for (int64_t i = 0; i < n_pairs; ++i) {
    float& a = x[first * i];
    float& b = x[first * i + distance];
    const float a0 = a;
    const float b0 = b;
    a = a0 * cos[i] - b0 * sin[i];
    b = a0 * sin[i] + b0 * cos[i];
  }
}

}  // namespace

void rope(const Exec& exec, const RopeTable& table, RopePairing pairing, int64_t head_dim,
          View2D<float> x) {
  const int64_t pairs = table.cos.cols;
  CHECK_GT(head_dim, 0);
  CHECK_LE(2 * pairs, head_dim);
  CHECK_EQ(table.sin.cols, pairs);
  CHECK_EQ(table.cos.rows, x.rows);
  CHECK_EQ(table.sin.rows, x.rows);
  const int64_t heads = div_exact(x.cols, head_dim);
  parallel_for(exec, x.rows, x.rows * x.cols, [&](Range rows) {
    for (int64_t r = rows.begin; r < rows.end; ++r) {
      const float* cos = table.cos.row(r).data();
      const float* sin = table.sin.row(r).data();
      float* row = x.row(r).data();
      for (int64_t h = 0; h < heads; ++h) {
        if (pairing == RopePairing::kAdjacent) {
          rotate(row + h * head_dim, cos, sin, pairs, 2, 1);
        } else {
          rotate(row + h * head_dim, cos, sin, pairs, 1, pairs);
        }
      }
    }
  });
}

}  // namespace spillway::cpu

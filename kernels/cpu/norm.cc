// rms_norm, rms_norm_heads and quantize_rows: divided by rows, computed by row_lanes.h.
//
// Bytes moved a row of n values: rms_norm reads x twice (the second time from cache) and the
// weight, writes n floats: 16 n. quantize_rows reads 4 n, writes 1.25 n. Both stay in the first
// caches in decode; they take under 1 % of a step and are not tuned further.
#include "kernels/core/int_math.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/parallel.h"

namespace spillway::cpu {

void rms_norm(const Exec& exec, View2D<const float> x, std::span<const float> weight, float eps,
              View2D<float> out) {
  CHECK_EQ(out.rows, x.rows);
  CHECK_EQ(out.cols, x.cols);
  CHECK_EQ(static_cast<int64_t>(weight.size()), x.cols);
  if (x.cols == 0) return;
  const KernelTable& kernels = kernel_table(exec.isa);
  parallel_for(exec, x.rows, x.rows * x.cols, [&](Range rows) {
    for (int64_t r = rows.begin; r < rows.end; ++r) {
      kernels.rms_norm_row(x.row(r).data(), weight.data(), x.cols, eps, out.row(r).data());
    }
  });
}

void rms_norm_heads(const Exec& exec, std::span<const float> weight, float eps, View2D<float> x) {
  if (weight.empty()) return;
  const auto head_dim = static_cast<int64_t>(weight.size());
  const int64_t heads = div_exact(x.cols, head_dim);
  const KernelTable& kernels = kernel_table(exec.isa);
  parallel_for(exec, x.rows, x.rows * x.cols, [&](Range rows) {
    for (int64_t r = rows.begin; r < rows.end; ++r) {
      float* row = x.row(r).data();
      for (int64_t h = 0; h < heads; ++h) {
        float* head = row + h * head_dim;
        kernels.rms_norm_row(head, weight.data(), head_dim, eps, head);
      }
    }
  });
}

void quantize_rows(const Exec& exec, const Activations& a) {
  const int64_t n = a.x.rows;
  const int64_t blocks = div_exact(a.x.cols, kActivationBlock);
  CHECK(a.q8.rows == n && a.scale.rows == n && a.sum.rows == n);
  CHECK_EQ(a.q8.cols, a.x.cols);
  CHECK_EQ(a.scale.cols, blocks);
  CHECK_EQ(a.sum.cols, a.x.cols / kSumBlock);
  const KernelTable& kernels = kernel_table(exec.isa);
  parallel_for(exec, n, n * a.x.cols, [&](Range rows) {
    for (int64_t r = rows.begin; r < rows.end; ++r) {
      kernels.quantize_row(a.x.row(r).data(), blocks, a.q8.row(r).data(), a.scale.row(r).data(),
                           a.sum.row(r).data());
    }
  });
}

}  // namespace spillway::cpu

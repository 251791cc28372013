// swiglu (by row_lanes.h) and the two element-wise additions. Bytes moved a value: swiglu reads 8
// and writes 4; add_bias moves 12; add_residual 16. All under 1 % of a step.
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/parallel.h"

namespace spillway::cpu {

void swiglu(const Exec& exec, View2D<const float> gate_up, View2D<float> out) {
  const int64_t ff = out.cols;
  CHECK_EQ(gate_up.rows, out.rows);
  CHECK_EQ(gate_up.cols, 2 * ff);
  const KernelTable& kernels = kernel_table(exec.isa);
  parallel_for(exec, out.rows, 4 * out.rows * ff, [&](Range rows) {
    for (int64_t r = rows.begin; r < rows.end; ++r) {
      const float* gate = gate_up.row(r).data();
      kernels.swiglu_row(gate, gate + ff, ff, out.row(r).data());
    }
  });
}

void add_bias(const Exec& exec, std::span<const float> bias, View2D<float> x) {
  if (bias.empty()) return;
  CHECK_EQ(static_cast<int64_t>(bias.size()), x.cols);
  parallel_for(exec, x.rows, x.rows * x.cols, [&](Range rows) {
    for (int64_t r = rows.begin; r < rows.end; ++r) {
      float* row = x.row(r).data();
      for (size_t i = 0; i < bias.size(); ++i) row[i] += bias[i];
    }
  });
}

void add_residual(const Exec& exec, View2D<const double> sum, View2D<float> x) {
  CHECK_EQ(sum.rows, x.rows);
  CHECK_EQ(sum.cols, x.cols);
  parallel_for(exec, x.rows, x.rows * x.cols, [&](Range rows) {
    for (int64_t r = rows.begin; r < rows.end; ++r) {
      const double* from = sum.row(r).data();
      float* row = x.row(r).data();
      for (int64_t i = 0; i < x.cols; ++i) row[i] += static_cast<float>(from[i]);
    }
  });
}

}  // namespace spillway::cpu

// swiglu and geglu (by row_lanes.h) and the element-wise sums. Bytes moved a value: swiglu and
// geglu read 8 and write 4; add_bias and add_rows move 12, add_residual 16, round_sum 12,
// scale_rows 8. All under 1 % of a step.
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/parallel.h"

namespace spillway::cpu {

namespace {

using GatedRow = void (*)(const float* gate, const float* up, int64_t n, float* out);

void gated(const Exec& exec, GatedRow row, View2D<const float> gate_up, View2D<float> out) {
  const int64_t ff = out.cols;
  CHECK_EQ(gate_up.rows, out.rows);
  CHECK_EQ(gate_up.cols, 2 * ff);
  parallel_for(exec, out.rows, 4 * out.rows * ff, [&](Range rows) {
    for (int64_t r = rows.begin; r < rows.end; ++r) {
      const float* gate = gate_up.row(r).data();
      row(gate, gate + ff, ff, out.row(r).data());
    }
  });
}

}  // namespace

void swiglu(const Exec& exec, View2D<const float> gate_up, View2D<float> out) {
  gated(exec, kernel_table(exec.isa).swiglu_row, gate_up, out);
}

void geglu(const Exec& exec, View2D<const float> gate_up, View2D<float> out) {
  gated(exec, kernel_table(exec.isa).geglu_row, gate_up, out);
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

void round_sum(const Exec& exec, View2D<const double> sum, View2D<float> out) {
  CHECK_EQ(sum.rows, out.rows);
  CHECK_EQ(sum.cols, out.cols);
  parallel_for(exec, out.rows, out.rows * out.cols, [&](Range rows) {
    for (int64_t r = rows.begin; r < rows.end; ++r) {
      const double* from = sum.row(r).data();
      float* row = out.row(r).data();
      for (int64_t i = 0; i < out.cols; ++i) row[i] = static_cast<float>(from[i]) + 0.0F;
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

void add_rows(const Exec& exec, View2D<const float> y, View2D<float> x) {
  CHECK_EQ(y.rows, x.rows);
  CHECK_EQ(y.cols, x.cols);
  parallel_for(exec, x.rows, x.rows * x.cols, [&](Range rows) {
    for (int64_t r = rows.begin; r < rows.end; ++r) {
      const float* from = y.row(r).data();
      float* row = x.row(r).data();
      for (int64_t i = 0; i < x.cols; ++i) row[i] += from[i];
    }
  });
}

void scale_rows(const Exec& exec, float factor, View2D<float> x) {
  parallel_for(exec, x.rows, x.rows * x.cols, [&](Range rows) {
    for (int64_t r = rows.begin; r < rows.end; ++r) {
      float* row = x.row(r).data();
      for (int64_t i = 0; i < x.cols; ++i) row[i] *= factor;
    }
  });
}

}  // namespace spillway::cpu

// Matrix products: shapes, threads and the choice of kernel. The arithmetic is in product_lanes.h.
//
// Bytes moved: every packed weight once per call (bits a weight as in the file: 4.5 for Q4_0), the
// activations once for every row group and tile, from cache.
// K-quants and 2048 columns on two cores: docs/bench/kernels.md.
// Best measured on one core of an AMD Zen 5 server (EPYC, AVX-512 VNNI, 3.9 GHz, shared machine),
// 2026-11-22, tests/kernels/product_bench.cc, weights [8192, 4096]. Ceilings there: 45 GB/s of
// memory (a plain read loop reaches 37), 983 GOP/s of vpdpbusd, 249 GFLOP/s of f32 fma.
//   one row        F32 42 GB/s, F16 43, Q8_0 44: all that memory gives; Q4_0, which fits the third
//                  cache, 74 GB/s of weights (AVX2: F32 45, Q4_0 45, Q8_0 24)
//   256 rows       Q8_0 766 GOP/s (78 %), Q4_0 726 (74 %), Q4_1 657 (67 %), F16 and BF16 225
//   GFLOP/s
//                  (90 %), F32 200 (80 %); AVX2: Q4_0 185, Q8_0 102 GOP/s, F16 92 GFLOP/s
#include <algorithm>

#include "kernels/core/dispatch.h"
#include "kernels/core/int_math.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/parallel.h"

namespace spillway::cpu {
namespace {

using ProductKernel = void (*)(QuantType, const ProductArgs&);

void check_codes(const Activations& a, int64_t cols) {
  const int64_t n = a.x.rows;
  const int64_t blocks = div_exact(cols, kActivationBlock);
  CHECK_EQ(a.q8.rows, n);
  CHECK_EQ(a.q8.cols, cols);
  CHECK_EQ(a.scale.rows, n);
  CHECK_EQ(a.scale.cols, blocks);
  CHECK_EQ(a.sum.rows, n);
  CHECK_EQ(a.sum.cols, cols / kSumBlock);
}

void check_matrix(const PackedMatrix& w, const Activations& a) {
  CHECK_EQ(w.cols, a.x.cols);
  CHECK_GE(w.rows, 0);
  CHECK_EQ(reinterpret_cast<uintptr_t>(w.data) % kPackedAlignment, 0u);
  CHECK(quant_info(w.type).computable);
  if (quant_info(w.type).block_elements > 1) check_codes(a, w.cols);
}

template <typename Out>
ProductArgs arguments(const PackedMatrix& w, const Activations& a, Out* out, int64_t out_stride) {
  ProductArgs args;
  args.weights = w.data;
  args.layout = group_layout(w.type, w.cols);
  args.rows = w.rows;
  args.cols = w.cols;
  args.n = a.x.rows;
  args.x = a.x.data;
  args.x_stride = a.x.stride;
  args.q8 = a.q8.data;
  args.q8_stride = a.q8.stride;
  args.scale = a.scale.data;
  args.scale_stride = a.scale.stride;
  args.sum = a.sum.data;
  args.sum_stride = a.sum.stride;
  args.out = out;
  args.out_stride = out_stride;
  return args;
}

// The parts' row groups counted through, cut into one contiguous range a worker.
template <typename Out>
void run_parts(const Exec& exec, ProductKernel kernel, std::span<const PackedMatrix> parts,
               const Activations& a, View2D<Out> out) {
  int64_t groups = 0;
  int64_t rows = 0;
  for (const PackedMatrix& w : parts) {
    check_matrix(w, a);
    groups += div_up(w.rows, kRowGroup);
    rows += w.rows;
  }
  CHECK_EQ(out.rows, a.x.rows);
  CHECK_EQ(out.cols, rows);
  if (a.x.rows == 0) return;
  parallel_for(exec, groups, rows * a.x.cols * a.x.rows / 32, [&](Range range) {
    int64_t first_group = 0;
    int64_t first_row = 0;
    for (const PackedMatrix& w : parts) {
      const int64_t n_groups = div_up(w.rows, kRowGroup);
      ProductArgs args = arguments(w, a, out.data + first_row, out.stride);
      args.group_begin = std::max<int64_t>(range.begin - first_group, 0);
      args.group_end = std::min(range.end - first_group, n_groups);
      if (args.group_begin < args.group_end) kernel(w.type, args);
      first_group += n_groups;
      first_row += w.rows;
    }
  });
}

}  // namespace

void matmul(const Exec& exec, std::span<const PackedMatrix> parts, const Activations& a,
            View2D<float> out) {
  run_parts(exec, kernel_table(exec.isa).product, parts, a, out);
}

void matmul_partial(const Exec& exec, const PackedMatrix& w, const Activations& a,
                    View2D<double> out) {
  run_parts(exec, kernel_table(exec.isa).product_partial, std::span(&w, 1), a, out);
}

}  // namespace spillway::cpu

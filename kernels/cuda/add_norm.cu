// add_rms_norm: what follows a sum over ranks that another fabric made. A thread block a row, as
// rms_norm. Bytes a value: 12 for x += y (10 with a bf16 y, 8 and 6 without the add), then 4, 2 and
// 1.25 in the forms asked for. Not timed on a device yet.
#include <type_traits>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/row_end.cuh"

namespace spillway::cuda {
namespace {

__device__ __forceinline__ float4 load_values(const float* row, int64_t quad, int64_t cols,
                                              bool whole) {
  return load_quad(row, quad, cols, whole);
}
__device__ __forceinline__ float4 load_values(const uint16_t* row, int64_t quad, int64_t cols,
                                              bool whole) {
  const uint16_t* at = row + quad * kQuadColumns;
  if (whole) return float_quad(*reinterpret_cast<const uint2*>(at));
  const int64_t n = cols - quad * kQuadColumns;
  const auto value = [&](int i) {
    return i < n ? __uint_as_float(static_cast<uint32_t>(at[i]) << 16) : 0.0f;
  };
  return {value(0), value(1), value(2), value(3)};
}

template <typename T, int kQuads>
__global__ void __launch_bounds__(1024)
    add_norm_kernel(View2D<const T> y, bool whole_y, RowEnd end) {
  __shared__ float partial[32];
  __shared__ double partial_double[32];
  const int64_t row = blockIdx.x;
  const ThreadQuads quads{threadIdx.x, blockDim.x, div_up(y.cols, kQuadColumns)};
  using Weights = std::conditional_t<(kQuads < 4), EarlyWeights<kQuads>, LateWeights>;
  const Weights weights{end, quads};
  float4 values[kQuads], x[kQuads];
  let_next_start();
  wait_for_previous();
#pragma unroll
  for (int k = 0; k < kQuads; ++k) {
    values[k] = quads.has(k) ? load_values(y.data + row * y.stride, quads.at(k), y.cols, whole_y)
                             : float4{0, 0, 0, 0};
  }
  load_x(end, row, quads, x);
  finish_row(end, row, quads, values, x, weights, BlockSum{partial, partial_double});
}

// Without the norm, for rows that registers do not hold: a thread a quad.
template <typename T>
__global__ void __launch_bounds__(kQuadThreads)
    add_kernel(View2D<const T> y, bool whole_y, RowEnd end) {
  let_next_start();
  wait_for_previous();
  const ThreadQuads quads{grid_quad(), 1, grid_quad() + 1};
  if (quads.first * kQuadColumns >= y.cols) return;
  for (int64_t row = blockIdx.y; row < y.rows; row += gridDim.y) {
    float4 values[1] = {load_values(y.data + row * y.stride, quads.first, y.cols, whole_y)};
    float4 x[1];
    load_x(end, row, quads, x);
    finish_row(end, row, quads, values, x, LateWeights{end, quads}, BlockSum{nullptr, nullptr});
  }
}

template <typename T>
void add_then_norm(const Exec& exec, View2D<const T> y, View2D<float> x, bool add,
                   const float* weight, float eps, unsigned forms, const Input& out) {
  CHECK_EQ(y.rows, x.rows);
  CHECK_EQ(y.cols, x.cols);
  if (x.rows == 0 || x.cols == 0) return;
  const NormShape shape = norm_shape(x.cols);
  if (!shape.in_registers) {
    launch(exec, add_kernel<T>, quad_grid(x.rows, x.cols), dim3(kQuadThreads), 0, y, whole_quads(y),
           row_end(x, add, nullptr, 0, 0, {}));
    if (weight != nullptr) rms_norm(exec, x, weight, eps, forms, out);
    return;
  }
  const auto kernel = shape.quads == 1   ? add_norm_kernel<T, 1>
                      : shape.quads == 2 ? add_norm_kernel<T, 2>
                                         : add_norm_kernel<T, 4>;
  launch(exec, kernel, dim3(static_cast<unsigned>(x.rows)), dim3(shape.threads), 0, y,
         whole_quads(y), row_end(x, add, weight, eps, forms, out));
}

}  // namespace

void add_rms_norm(const Exec& exec, View2D<const float> y, View2D<float> x, bool add,
                  const float* weight, float eps, unsigned forms, const Input& out) {
  add_then_norm(exec, y, x, add, weight, eps, forms, out);
}

void add_rms_norm(const Exec& exec, View2D<const uint16_t> y, View2D<float> x, bool add,
                  const float* weight, float eps, unsigned forms, const Input& out) {
  add_then_norm(exec, y, x, add, weight, eps, forms, out);
}

}  // namespace spillway::cuda

// add_bias, add_rows, scale_rows and gather_rows. Bytes a value: 12 (with a bias 8, it stays in
// cache), 12, 8 and 8. Not timed on a device yet.
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/row_quads.cuh"

namespace spillway::cuda {
namespace {

__device__ __forceinline__ float4 sum_of(float4 a, float4 b) {
  return {a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w};
}

// x += y; a stride of 0 in y: one row for all.
__global__ void __launch_bounds__(kQuadThreads)
    add_kernel(const float* y, int64_t y_stride, View2D<float> x, bool whole) {
  let_next_start();
  wait_for_previous();
  const int64_t quad = grid_quad();
  if (quad * kQuadColumns >= x.cols) return;
  for (int64_t row = blockIdx.y; row < x.rows; row += gridDim.y) {
    float* to = x.data + row * x.stride;
    const float4 sum = sum_of(load_quad(to, quad, x.cols, whole),
                              load_quad(y + row * y_stride, quad, x.cols, whole));
    store_quad(to, quad, x.cols, whole, sum);
  }
}

__global__ void __launch_bounds__(kQuadThreads)
    scale_kernel(float factor, View2D<float> x, bool whole) {
  let_next_start();
  wait_for_previous();
  const int64_t quad = grid_quad();
  if (quad * kQuadColumns >= x.cols) return;
  for (int64_t row = blockIdx.y; row < x.rows; row += gridDim.y) {
    float* to = x.data + row * x.stride;
    const float4 v = load_quad(to, quad, x.cols, whole);
    store_quad(to, quad, x.cols, whole, {v.x * factor, v.y * factor, v.z * factor, v.w * factor});
  }
}

__global__ void __launch_bounds__(kQuadThreads)
    gather_kernel(View2D<const float> x, const int32_t* rows, View2D<float> out, bool whole) {
  let_next_start();
  wait_for_previous();
  const int64_t quad = grid_quad();
  if (quad * kQuadColumns >= out.cols) return;
  for (int64_t row = blockIdx.y; row < out.rows; row += gridDim.y) {
    const float* from = x.data + static_cast<int64_t>(rows[row]) * x.stride;
    store_quad(out.data + row * out.stride, quad, out.cols, whole,
               load_quad(from, quad, out.cols, whole));
  }
}

bool is_empty(const View2D<float>& x) { return x.rows == 0 || x.cols == 0; }

}  // namespace

void add_bias(const Exec& exec, const float* bias, View2D<float> x) {
  if (is_empty(x)) return;
  const bool whole = whole_quads(x) && whole_quads(View2D<const float>(bias, 1, x.cols));
  launch(exec, add_kernel, quad_grid(x.rows, x.cols), dim3(kQuadThreads), 0, bias, int64_t{0}, x,
         whole);
}

void add_rows(const Exec& exec, View2D<const float> y, View2D<float> x) {
  CHECK_EQ(y.rows, x.rows);
  CHECK_EQ(y.cols, x.cols);
  if (is_empty(x)) return;
  launch(exec, add_kernel, quad_grid(x.rows, x.cols), dim3(kQuadThreads), 0, y.data, y.stride, x,
         whole_quads(x) && whole_quads(y));
}

void scale_rows(const Exec& exec, float factor, View2D<float> x) {
  if (is_empty(x)) return;
  launch(exec, scale_kernel, quad_grid(x.rows, x.cols), dim3(kQuadThreads), 0, factor, x,
         whole_quads(x));
}

void gather_rows(const Exec& exec, View2D<const float> x, const int32_t* rows, View2D<float> out) {
  CHECK_EQ(x.cols, out.cols);
  if (is_empty(out)) return;
  launch(exec, gather_kernel, quad_grid(out.rows, out.cols), dim3(kQuadThreads), 0, x, rows, out,
         whole_quads(x) && whole_quads(out));
}

}  // namespace spillway::cuda

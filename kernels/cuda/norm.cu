// rms_norm and rms_norm_heads. rms_norm has a thread block a row: decode has one row, and what
// counts then is the way from the first load to the last store, so the row is loaded once, its
// weights before the kernel ahead has ended, and summed with one barrier. Bytes a value: 8 read, 4,
// 2 and 1.25 written in the forms asked for. Not timed on a device yet.
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/norm_rows.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/quantize.cuh"

namespace spillway::cuda {
namespace {

// kQuads > 0: a thread's quads stay in registers, quad t + k * blockDim.x being its k-th.
template <int kQuads>
__global__ void __launch_bounds__(1024)
    rms_norm_kernel(View2D<const float> x, bool whole, const float* weight, bool whole_weight,
                    float eps, InputWriter writer) {
  __shared__ float partial[32];
  __shared__ double partial_double[32];
  const int64_t quads = (x.cols + kQuadColumns - 1) / kQuadColumns;
  const int64_t row = blockIdx.x;
  const auto quad_at = [&](int k) { return threadIdx.x + static_cast<int64_t>(k) * blockDim.x; };
  float4 weights[kQuads], values[kQuads];
#pragma unroll
  for (int k = 0; k < kQuads; ++k) {
    weights[k] = quad_at(k) < quads ? load_quad(weight, quad_at(k), x.cols, whole_weight)
                                    : float4{0, 0, 0, 0};
  }
  let_next_start();
  wait_for_previous();
  const float* from = x.data + row * x.stride;
#pragma unroll
  for (int k = 0; k < kQuads; ++k) {
    values[k] =
        quad_at(k) < quads ? load_quad(from, quad_at(k), x.cols, whole) : float4{0, 0, 0, 0};
  }
  const float factor = norm_factor(values, x.cols, eps, BlockSum{partial, partial_double});
#pragma unroll
  for (int k = 0; k < kQuads; ++k) {
    if (quad_at(k) < quads) writer.put(row, quad_at(k), scaled(values[k], factor, weights[k]));
  }
}

// Rows that do not fit into registers: read twice, the second time out of L2.
__global__ void __launch_bounds__(1024)
    rms_norm_long_kernel(View2D<const float> x, bool whole, const float* weight, bool whole_weight,
                         float eps, InputWriter writer) {
  __shared__ double partial[32];
  let_next_start();
  wait_for_previous();
  const int64_t quads = (x.cols + kQuadColumns - 1) / kQuadColumns;
  const int64_t row = blockIdx.x;
  const float* from = x.data + row * x.stride;
  double sum = 0;
  for (int64_t quad = threadIdx.x; quad < quads; quad += blockDim.x) {
    sum = add_squares(sum, load_quad(from, quad, x.cols, whole));
  }
  const float factor = factor_of(block_sum(sum, partial), x.cols, eps);
  for (int64_t quad = threadIdx.x; quad < quads; quad += blockDim.x) {
    const float4 v = load_quad(from, quad, x.cols, whole);
    writer.put(row, quad, scaled(v, factor, load_quad(weight, quad, x.cols, whole_weight)));
  }
}

// Heads are short: a warp each, 4 in a block. Up to 256 values stay in registers.
constexpr int kHeadWarps = 4;
constexpr int kHeadQuads = 2;

__global__ void __launch_bounds__(kHeadWarps * 32)
    rms_norm_heads_kernel(const float* weight, float eps, int64_t head_dim, int64_t heads,
                          bool whole, bool whole_weight, View2D<float> x) {
  let_next_start();
  wait_for_previous();
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kHeadWarps + threadIdx.x / 32;
  if (index >= heads * x.rows) return;  // a whole warp
  float* head = x.data + index / heads * x.stride + index % heads * head_dim;
  const int64_t quads = (head_dim + kQuadColumns - 1) / kQuadColumns;
  const int64_t first = threadIdx.x % 32;
  float4 values[kHeadQuads];
  float sum = 0;
#pragma unroll
  for (int k = 0; k < kHeadQuads; ++k) {
    const int64_t quad = first + 32 * k;
    values[k] = quad < quads ? load_quad(head, quad, head_dim, whole) : float4{0, 0, 0, 0};
    sum = add_squares(sum, values[k]);
  }
  const auto each_more = [&](auto f) {
    for (int64_t quad = first + 32 * kHeadQuads; quad < quads; quad += 32) f(quad);
  };
  each_more([&](int64_t quad) { sum = add_squares(sum, load_quad(head, quad, head_dim, whole)); });
  const float squares = warp_sum(sum);
  float factor;
  if (needs_double(squares)) {
    double wide = 0;
#pragma unroll
    for (int k = 0; k < kHeadQuads; ++k) wide = add_squares(wide, values[k]);
    each_more(
        [&](int64_t quad) { wide = add_squares(wide, load_quad(head, quad, head_dim, whole)); });
    factor = factor_of(warp_sum(wide), head_dim, eps);
  } else {
    factor = factor_of(squares, head_dim, eps);
  }
  const auto put = [&](int64_t quad, float4 v) {
    const float4 w = load_quad(weight, quad, head_dim, whole_weight);
    store_quad(head, quad, head_dim, whole, scaled(v, factor, w));
  };
#pragma unroll
  for (int k = 0; k < kHeadQuads; ++k) {
    if (first + 32 * k < quads) put(first + 32 * k, values[k]);
  }
  each_more([&](int64_t quad) { put(quad, load_quad(head, quad, head_dim, whole)); });
}

}  // namespace

void rms_norm(const Exec& exec, View2D<const float> x, const float* weight, float eps,
              unsigned forms, const Input& out) {
  CHECK_EQ(out.n, x.rows);
  CHECK_EQ(out.cols, x.cols);
  if (x.rows == 0 || x.cols == 0 || forms == 0) return;
  // In place every thread reads what it writes, and the rows must be the same ones.
  CHECK(!(forms & kFloatForm) || out.x != x.data || x.rows == 1 || x.stride == x.cols);
  const NormShape shape = norm_shape(x.cols);
  const auto kernel = !shape.in_registers ? rms_norm_long_kernel
                      : shape.quads == 1  ? rms_norm_kernel<1>
                      : shape.quads == 2  ? rms_norm_kernel<2>
                                          : rms_norm_kernel<4>;
  launch(exec, kernel, dim3(static_cast<unsigned>(x.rows)), dim3(shape.threads), 0, x,
         whole_quads(x), weight, whole_vector(weight, x.cols), eps, input_writer(out, forms));
}

void rms_norm_heads(const Exec& exec, const float* weight, float eps, int64_t head_dim,
                    View2D<float> x) {
  if (x.rows == 0 || x.cols == 0) return;
  const int64_t heads = div_exact(x.cols, head_dim);
  const bool whole = whole_quads(x) && head_dim % kQuadColumns == 0;
  launch(exec, rms_norm_heads_kernel,
         dim3(static_cast<unsigned>(div_up(x.rows * heads, kHeadWarps))), dim3(kHeadWarps * 32), 0,
         weight, eps, head_dim, heads, whole, whole_vector(weight, head_dim), x);
}

}  // namespace spillway::cuda

// What every kernel with a norm at its end shares: how a row lies in a block's registers, the sum
// of its squares, its factor. One code and one shape for a width, so that a norm fused to the sum
// before it has the bits of rms_norm. Included by norm.cu, add_norm.cu and the peers' sums.
#pragma once

#include "kernels/cuda/quantize.cuh"

namespace spillway::cuda {

inline constexpr unsigned kAllLanes = 0xffffffffu;

// Fused by hand: the compiler would too, but not by promise.
template <typename T>
__device__ __forceinline__ T add_squares(T sum, float4 v) {
  const T x = v.x, y = v.y, z = v.z, w = v.w;
  return fma(w, w, fma(z, z, fma(y, y, fma(x, x, sum))));
}

// The same bits in every lane: both sides of an exchange add the same two numbers.
template <typename T>
__device__ __forceinline__ T warp_sum(T sum) {
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(kAllLanes, sum, step);
  return sum;
}

// The sum over the thread block, in every thread. partial: 32 values that nothing else uses.
template <typename T>
__device__ __forceinline__ T block_sum(T sum, T* partial) {
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
  __syncthreads();
  const unsigned lane = threadIdx.x % 32;
  return warp_sum(lane < blockDim.x / 32 ? partial[lane] : T{0});
}

// Sums over a row that one block has, for norm_factor(); 32 values each that nothing else uses.
struct BlockSum {
  float* partial;
  double* partial_double;
  __device__ __forceinline__ float operator()(float sum) const { return block_sum(sum, partial); }
  __device__ __forceinline__ double operator()(double sum) const {
    return block_sum(sum, partial_double);
  }
};

// Squares add up in float, unless they overflowed or are too small for it: then in double, as the
// CPU's always do. All threads of the sum decide alike.
__device__ __forceinline__ bool needs_double(float squares) {
  return !(squares > 1e-28f && squares < 3e38f);
}
__device__ __forceinline__ float factor_of(float squares, int64_t n, float eps) {
  const float mean = __fdiv_rn(squares, static_cast<float>(n));
  return __fdiv_rn(1.0f, __fsqrt_rn(mean + eps));
}
__device__ __forceinline__ float factor_of(double squares, int64_t n, float eps) {
  return static_cast<float>(1.0 / sqrt(squares / static_cast<double>(n) + eps));
}

__device__ __forceinline__ float4 scaled(float4 v, float factor, float4 weight) {
  return {v.x * factor * weight.x, v.y * factor * weight.y, v.z * factor * weight.z,
          v.w * factor * weight.w};
}

// The factor of a row, of which this thread has `values`; the same in all its threads. row_sum:
// adds a float or a double over them.
template <int kQuads, typename RowSum>
__device__ __forceinline__ float norm_factor(const float4 (&values)[kQuads], int64_t cols,
                                             float eps, const RowSum& row_sum) {
  float sum = 0;
#pragma unroll
  for (int k = 0; k < kQuads; ++k) sum = add_squares(sum, values[k]);
  const float squares = row_sum(sum);
  if (!needs_double(squares)) return factor_of(squares, cols, eps);
  double wide = 0;
#pragma unroll
  for (int k = 0; k < kQuads; ++k) wide = add_squares(wide, values[k]);
  return factor_of(row_sum(wide), cols, eps);
}

// How a row of cols values lies in registers: thread t of `threads` has the quads t, t + threads,
// ..., `quads` of them at most. Up to 512 threads while that needs at most 4 quads of each: fewer
// warps meet sooner.
struct NormShape {
  int quads = 1;  // a thread: 1, 2 or 4
  unsigned threads = 32;
  bool in_registers = true;  // otherwise the row is too long for it
};
inline NormShape norm_shape(int64_t cols) {
  const int64_t quads = quads_of(cols);
  NormShape shape;
  shape.quads = quads <= 512 ? 1 : quads <= 1024 ? 2 : 4;
  shape.in_registers = quads <= 4 * 1024;
  const int64_t wanted = round_up(div_up(quads, shape.quads), 32);
  shape.threads = static_cast<unsigned>(std::min<int64_t>(wanted, 1024));
  return shape;
}

inline bool whole_vector(const float* weight, int64_t n) {
  return whole_quads(View2D<const float>(weight, 1, n));
}

}  // namespace spillway::cuda

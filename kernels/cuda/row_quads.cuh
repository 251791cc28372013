// Rows in fours: how the ops that go along rows read and write. A thread has one quad, four
// neighbouring columns, in one access of 16 bytes where the memory allows it. Included by the row
// ops' sources.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "kernels/core/int_math.h"
#include "kernels/core/tensor.h"

namespace spillway::cuda {

inline constexpr int64_t kQuadColumns = 4;

inline int64_t quads_of(int64_t cols) { return div_up(cols, kQuadColumns); }

// Whether every quad of every row lies on 16 bytes and none is cut short.
template <typename T>
bool whole_quads(const View2D<T>& view) {
  const bool rows_aligned = view.rows <= 1 || view.stride % kQuadColumns == 0;
  return view.cols % kQuadColumns == 0 && rows_aligned &&
         reinterpret_cast<uintptr_t>(view.data) % (kQuadColumns * sizeof(T)) == 0;
}

// Columns beyond the row are 0. whole: whole_quads() of the row's view.
__device__ __forceinline__ float4 load_quad(const float* row, int64_t quad, int64_t cols,
                                            bool whole) {
  const float* at = row + quad * kQuadColumns;
  if (whole) return *reinterpret_cast<const float4*>(at);
  const int64_t n = cols - quad * kQuadColumns;
  return {n > 0 ? at[0] : 0.0f, n > 1 ? at[1] : 0.0f, n > 2 ? at[2] : 0.0f, n > 3 ? at[3] : 0.0f};
}

__device__ __forceinline__ void store_quad(float* row, int64_t quad, int64_t cols, bool whole,
                                           float4 v) {
  float* at = row + quad * kQuadColumns;
  if (whole) {
    *reinterpret_cast<float4*>(at) = v;
    return;
  }
  const int64_t n = cols - quad * kQuadColumns;
  if (n > 0) at[0] = v.x;
  if (n > 1) at[1] = v.y;
  if (n > 2) at[2] = v.z;
  if (n > 3) at[3] = v.w;
}

// For ops without a sum: a thread a quad, x along the row, y over the rows (a grid's y ends at
// 65535: kernels go on from there in steps of gridDim.y).
inline constexpr unsigned kQuadThreads = 128;
inline dim3 quad_grid(int64_t rows, int64_t cols) {
  return {static_cast<unsigned>(div_up(quads_of(cols), kQuadThreads)),
          static_cast<unsigned>(std::min<int64_t>(rows, 65535)), 1};
}
__device__ __forceinline__ int64_t grid_quad() {
  return static_cast<int64_t>(blockIdx.x) * kQuadThreads + threadIdx.x;
}

}  // namespace spillway::cuda

// How the splits of a sequence become one result, at the end of attend_decode.cuh's blocks. A block
// leaves its partial sums in the workspace and arrives at a counter; who arrives last adds up. The
// order of the sum is that of the splits, whoever adds, so bits do not depend on who was last.
//   Up to kOneLevel splits are added by one block. More are groups, each added by its last block
// into the place of its first split, and the last group's block adds the groups: one block alone
// reads no more than about 64 bytes a cycle, and 49 splits of 4 heads of 128 are 100 KB.
//   Counters wrap to 0 with the last arrival: the next launch, and a graph's next replay, finds
// them as this one did.
#pragma once

#include <math_constants.h>

#include "kernels/cuda/attend_common.cuh"
#include "kernels/cuda/attend_split.cuh"

namespace spillway::cuda {

inline constexpr int kAttendCounters = static_cast<int>(kAttendCounterBytes / 8);  // of a level
inline constexpr int kOneLevel = 32;

// Splits of a group.
__device__ __forceinline__ int group_size(int n_splits) {
  if (n_splits <= kOneLevel) return n_splits;
  return n_splits <= 256 ? 8 : 16;
}

// Whether the block is the last of n to arrive; it sees then what all of them wrote. What the
// block's own threads wrote before is published by one of them: a barrier and a release of the
// whole device are cumulative.
__device__ __forceinline__ bool arrives_last(unsigned* counter, int n) {
  __syncthreads();
  bool last = false;
  if (threadIdx.x == 0) {
    unsigned before;
    asm volatile("atom.acq_rel.gpu.global.inc.u32 %0, [%1], %2;"
                 : "=r"(before)
                 : "l"(counter), "r"(static_cast<unsigned>(n - 1))
                 : "memory");
    last = before == static_cast<unsigned>(n - 1);
  }
  return __syncthreads_or(last) != 0;
}

// Sums of four columns under a maximum.
struct Merged {
  float maximum;
  float weights;
  float4 sum;
};

__device__ __forceinline__ float shrink_to(float maximum, float greatest) {
  return maximum == -CUDART_INF_F ? 0.0f : power_of_two(maximum - greatest);
}

__device__ __forceinline__ void add_scaled(float4& sum, const float4& x, float factor) {
  sum.x += x.x * factor;
  sum.y += x.y * factor;
  sum.z += x.z * factor;
  sum.w += x.w * factor;
}

// Slots first, first + step, ..., n of them; 16 are on their way at once.
__device__ __forceinline__ Merged merge_slots(const AttendParams& a, int first, int step, int n,
                                              int head, int col) {
  constexpr int kAhead = 16;
  Merged merged{-CUDART_INF_F, 0, {0, 0, 0, 0}};
  for (int begin = 0; begin < n; begin += kAhead) {
    float2 stats[kAhead];
    float4 sums[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      stats[i] = {-CUDART_INF_F, 0};
      sums[i] = {0, 0, 0, 0};
      if (begin + i < n) {
        const int64_t slot = first + (begin + i) * step;
        stats[i] = __ldcg(a.stats + slot * a.n_heads + head);
        sums[i] = __ldcg(reinterpret_cast<const float4*>(a.partial + slot * a.out.cols + col));
      }
    }
    float greatest = merged.maximum;
#pragma unroll
    for (int i = 0; i < kAhead; ++i) greatest = fmaxf(greatest, stats[i].x);
    const float own = shrink_to(merged.maximum, greatest);
    merged.weights *= own;
    merged.sum = {merged.sum.x * own, merged.sum.y * own, merged.sum.z * own, merged.sum.w * own};
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const float factor = shrink_to(stats[i].x, greatest);
      merged.weights += stats[i].y * factor;
      add_scaled(merged.sum, sums[i], factor);
    }
    merged.maximum = greatest;
  }
  return merged;
}

__device__ __forceinline__ void put_partial(const AttendParams& a, int slot, int col,
                                            const float4& sum) {
  *reinterpret_cast<float4*>(a.partial + static_cast<int64_t>(slot) * a.out.cols + col) = sum;
}

// Calls f(head, dim) for the block's quads of columns, dim % 4 == 0.
template <int kThreads, typename F>
__device__ __forceinline__ void for_quads(int n_heads, int head_dim, const F& f) {
  for (int i = static_cast<int>(threadIdx.x); i < n_heads * head_dim / 4; i += kThreads) {
    const int head = 4 * i / head_dim;
    f(head, 4 * i - head * head_dim);
  }
}

// The block's partial sums are in its slot. True: this block has the result of all splits, in
// result[head * kStride + dim], not yet seen by the other threads. `level` has room for a float2 a
// head.
template <int kThreads, int kStride>
__device__ bool merge_splits(const AttendParams& a, const Piece& piece, const HeadSpan& heads,
                             int head_dim, float2* level, float* result) {
  const int size = group_size(piece.n_splits);
  const int n_groups = (piece.n_splits + size - 1) / size;
  const int group = piece.split / size;
  const auto span = static_cast<int>(blockIdx.y);
  const auto spans = static_cast<int>(gridDim.y);
  const int members = min(size, piece.n_splits - group * size);
  if (!arrives_last(a.counters + (piece.counter + group) * spans + span, members)) return false;
  int first = piece.first_slot + group * size;
  int step = 1;
  int n = members;
  if (n_groups > 1) {
    for_quads<kThreads>(heads.n, head_dim, [&](int head, int dim) {
      const int col = (heads.begin + head) * head_dim + dim;
      const Merged merged = merge_slots(a, first, 1, members, heads.begin + head, col);
      put_partial(a, first, col, merged.sum);  // which nobody else reads
      if (dim == 0) level[head] = {merged.maximum, merged.weights};
    });
    __syncthreads();  // every thread has read the statistics of the first split
    if (static_cast<int>(threadIdx.x) < heads.n) {
      a.stats[static_cast<int64_t>(first) * a.n_heads + heads.begin + threadIdx.x] =
          level[threadIdx.x];
    }
    if (!arrives_last(a.counters + kAttendCounters + piece.counter * spans + span, n_groups)) {
      return false;
    }
    first = piece.first_slot;
    step = size;
    n = n_groups;
  }
  for_quads<kThreads>(heads.n, head_dim, [&](int head, int dim) {
    const int col = (heads.begin + head) * head_dim + dim;
    const Merged merged = merge_slots(a, first, step, n, heads.begin + head, col);
    *reinterpret_cast<float4*>(result + head * kStride + dim) = {
        merged.sum.x / merged.weights, merged.sum.y / merged.weights, merged.sum.z / merged.weights,
        merged.sum.w / merged.weights};
  });
  return true;
}

}  // namespace spillway::cuda

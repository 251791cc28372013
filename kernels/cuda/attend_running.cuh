// The arithmetic of attend_decode.cuh: a warp's running softmax over tiles of 16 tokens, and the
// sum of a block's four warps. See there for the shape of the products.
#pragma once

#include <math_constants.h>

#include "kernels/cuda/attend_common.cuh"
#include "kernels/cuda/attend_tile.cuh"

namespace spillway::cuda {

inline constexpr int kWarps = 4;
inline constexpr int kThreads = 32 * kWarps;

template <int kDim>
struct Shape {
  static constexpr int kSteps = kDim / 16;
  static constexpr int kHeadStride = kDim + 4;  // of sums in shared memory
};

// A lane's part of a tile of keys: 2 blocks of 8 keys; of values: 4 tokens.
template <typename Rows, int kDim>
struct Keys {
  typename Rows::template Key<kDim> of[2];
};
template <typename Rows, int kDim>
struct Values {
  typename Rows::template Value<kDim> of[4];
};

// The running softmax of a warp's tiles. Heads: rows of S are g, columns of O^T 2c and 2c+1.
template <int kDim, int kBlocks>
struct Running {
  float maximum[kBlocks];
  float weights[kBlocks];  // of this lane's tokens
  float sum[kBlocks][Shape<kDim>::kSteps][4];

  __device__ __forceinline__ Running() {
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
      maximum[b] = -CUDART_INF_F;
      weights[b] = 0;
#pragma unroll
      for (int m = 0; m < Shape<kDim>::kSteps; ++m) {
#pragma unroll
        for (int i = 0; i < 4; ++i) sum[b][m][i] = 0;
      }
    }
  }
};

// Scores of a block of 8 heads with the tile's 16 keys: [i] of key 8 (i / 2) + 2c + i % 2.
template <typename Rows, int kDim>
__device__ __forceinline__ void score(const Keys<Rows, kDim>& keys, const uint4* staged, int lane,
                                      float (&scores)[4]) {
  float low[4] = {0, 0, 0, 0};
  float high[4] = {0, 0, 0, 0};
#pragma unroll
  for (int step = 0; step < Shape<kDim>::kSteps; ++step) {
    const uint4 q = staged[step * 32 + lane];
    const uint2 first = keys.of[0].step(step);
    const uint2 second = keys.of[1].step(step);
    multiply_add(low, q, first.x, first.y);
    multiply_add(high, q, second.x, second.y);
  }
  scores[0] = low[0] + low[2];
  scores[1] = low[1] + low[3];
  scores[2] = high[0] + high[2];
  scores[3] = high[1] + high[3];
}

// Scores to weights; returns them as the product with V takes them. Sums under a smaller maximum
// shrink.
template <int kDim, int kBlocks>
__device__ __forceinline__ uint4 weigh(Running<kDim, kBlocks>& r, int block, int lane,
                                       const float (&scores)[4]) {
  float maximum = fmaxf(fmaxf(scores[0], scores[1]), fmaxf(scores[2], scores[3]));
  maximum = fmaxf(maximum, __shfl_xor_sync(kWholeWarp, maximum, 1));
  maximum = fmaxf(maximum, __shfl_xor_sync(kWholeWarp, maximum, 2));
  maximum = fmaxf(maximum, r.maximum[block]);
  if (__any_sync(kWholeWarp, maximum != r.maximum[block])) {
    const float shrink = power_of_two(r.maximum[block] - maximum);
    r.maximum[block] = maximum;
    r.weights[block] *= shrink;
    const float even = __shfl_sync(kWholeWarp, shrink, lane % 4 * 8);
    const float odd = __shfl_sync(kWholeWarp, shrink, lane % 4 * 8 + 4);
#pragma unroll
    for (int m = 0; m < Shape<kDim>::kSteps; ++m) {
      r.sum[block][m][0] *= even;
      r.sum[block][m][1] *= odd;
      r.sum[block][m][2] *= even;
      r.sum[block][m][3] *= odd;
    }
  }
  float w[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) w[i] = power_of_two(scores[i] - maximum);
  r.weights[block] += (w[0] + w[1]) + (w[2] + w[3]);
  uint4 p = {half_pair(w[0], w[1]), half_pair(w[2], w[3]), 0, 0};
  const float2 first = float_pair(p.x);
  const float2 second = float_pair(p.y);
  p.z = half_pair(w[0] - first.x, w[1] - first.y);
  p.w = half_pair(w[2] - second.x, w[3] - second.y);
  return p;
}

template <typename Rows, int kDim, int kBlocks>
__device__ __forceinline__ void add_values(Running<kDim, kBlocks>& r,
                                           const Values<Rows, kDim>& values,
                                           const uint4 (&p)[kBlocks]) {
#pragma unroll
  for (int m = 0; m < Shape<kDim>::kSteps; ++m) {
    const uint32_t tiles[4] = {values.of[0].tile(m), values.of[1].tile(m), values.of[2].tile(m),
                               values.of[3].tile(m)};
    const uint4 v = {
        __byte_perm(tiles[0], tiles[1], 0x5410), __byte_perm(tiles[0], tiles[1], 0x7632),
        __byte_perm(tiles[2], tiles[3], 0x5410), __byte_perm(tiles[2], tiles[3], 0x7632)};
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
      multiply_add(r.sum[b][m], v, p[b].x, p[b].y);
      multiply_add(r.sum[b][m], v, p[b].z, p[b].w);
    }
  }
}

// Sums of the four warps to sums[head][dim] under the greatest maximum: (0 + 2) + (1 + 3).
// Statistics of a head to stats[0][head], sum of weights and maximum.
template <typename Rows, int kDim, int kBlocks>
__device__ void merge_warps(Running<kDim, kBlocks>& r, float2 (*stats)[8 * kBlocks], float* sums) {
  constexpr int kStride = Shape<kDim>::kHeadStride;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int g = lane / 4;
  const int c = lane % 4;
#pragma unroll
  for (int b = 0; b < kBlocks; ++b) {
    float weights = r.weights[b];
    weights += __shfl_xor_sync(kWholeWarp, weights, 1);
    weights += __shfl_xor_sync(kWholeWarp, weights, 2);
    if (c == 0) stats[warp][8 * b + g] = {r.maximum[b], weights};
  }
  __syncthreads();
  float* half = sums + warp % 2 * (8 * kBlocks * kStride);
  const auto place = [&](bool add) {
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
      for (int odd = 0; odd < 2; ++odd) {
        const int head = 8 * b + 2 * c + odd;
        float maximum = stats[0][head].x;
        for (int w = 1; w < kWarps; ++w) maximum = fmaxf(maximum, stats[w][head].x);
        const float own = stats[warp][head].x;
        const float factor = own == -CUDART_INF_F ? 0.0f : power_of_two(own - maximum);
#pragma unroll
        for (int m = 0; m < Shape<kDim>::kSteps; ++m) {
          auto* to = reinterpret_cast<float2*>(half + head * kStride +
                                               Rows::template value_dim<kDim>(m, g));
          float2 x = {r.sum[b][m][odd] * factor, r.sum[b][m][odd + 2] * factor};
          if (add) {
            const float2 other = *to;
            x = {other.x + x.x, other.y + x.y};
          }
          *to = x;
        }
      }
    }
  };
  if (warp < 2) place(false);
  __syncthreads();
  if (warp >= 2) place(true);
  __syncthreads();
}

template <int kHeads>
__device__ float2 merged_stats(const float2 (*stats)[kHeads], int head) {
  float maximum = stats[0][head].x;
  for (int w = 1; w < kWarps; ++w) maximum = fmaxf(maximum, stats[w][head].x);
  float weights = 0;
  for (int w = 0; w < kWarps; ++w) {
    const float2 s = stats[w][head];
    weights += s.x == -CUDART_INF_F ? s.y * 0.0f : s.y * power_of_two(s.x - maximum);
  }
  return {maximum, weights};
}

}  // namespace spillway::cuda

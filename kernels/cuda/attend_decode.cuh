// The kernel of attend for sequences with one row: a block takes all query heads of a KV head (up
// to 16) over a split of the context, so keys and values are read once; attend.cu adds the splits
// up.
//
//   S = Q K^T      rows 0-7 of a tile are heads, rows 8-15 what rounding those to halves lost; keys
//                  come from memory straight into fragments: the dimensions are permuted so that a
//                  lane reads 16 bytes of a row, as Q is
//   O^T = V^T P^T  the weights, in halves and what rounding to those lost, are already where the
//                  product wants them; values come from memory
//                  too, two tokens' halves woven by byte permutes
//
// Shared memory holds Q and, at the end, the sums of the four warps; nothing waits for a barrier in
// the loop. In flight a warp: a tile's V and the next tile's K, 8 KB at head_dim 128.
//   Bytes: 2 * head_dim * (K and V) a token and KV head, once. Best measured: see docs/bench.
#pragma once

#include <math_constants.h>

#include "kernels/core/int_math.h"
#include "kernels/cuda/attend_common.cuh"
#include "kernels/cuda/attend_split.cuh"
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

// Q times scale as tiles' left sides, [block of 8 heads][step][lane].
template <typename Rows, int kDim, int kBlocks>
__device__ void stage_queries(const AttendParams& a, const HeadSpan& heads, int64_t row,
                              uint4* staged) {
  constexpr int kSteps = Shape<kDim>::kSteps;
  for (int i = static_cast<int>(threadIdx.x); i < kBlocks * kSteps * 32; i += kThreads) {
    const int lane = i % 32;
    const int head = i / (32 * kSteps) * 8 + lane / 4;
    const int dim = Rows::template key_dim<kDim>(i / 32 % kSteps, lane % 4);
    float4 q = {0, 0, 0, 0};
    if (head < heads.n && dim < a.head_dim) {
      q = __ldcg(reinterpret_cast<const float4*>(
          a.q + row * a.q_stride + static_cast<int64_t>(heads.begin + head) * a.head_dim + dim));
    }
    const float x[4] = {q.x * a.scale_log2, q.y * a.scale_log2, q.z * a.scale_log2,
                        q.w * a.scale_log2};
    const uint32_t first = half_pair(x[0], x[1]);
    const uint32_t second = half_pair(x[2], x[3]);
    const float2 near_first = float_pair(first);
    const float2 near_second = float_pair(second);
    staged[i] = {first, half_pair(x[0] - near_first.x, x[1] - near_first.y), second,
                 half_pair(x[2] - near_second.x, x[3] - near_second.y)};
  }
}

// The running softmax of a warp's tiles. Heads: rows of S are g, columns of O^T 2c and 2c+1.
template <int kDim, int kBlocks>
struct Running {
  float maximum[kBlocks];
  float weights[kBlocks];  // of this lane's tokens
  float sum[kBlocks][Shape<kDim>::kSteps][4];
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

// Tiles tile, tile + 4, ... of a warp. Rows outside of `seen` are not touched: lanes that have
// nothing else to read repeat the nearest that is inside, for a weight of 0.
template <typename Rows, int kDim, bool kPadded, int kBlocks>
__device__ void run_tiles(const AttendParams& a, const int32_t* pages, int kv, TokenRange seen,
                          int tile, int end_tile, const uint4* staged,
                          Running<kDim, kBlocks>& running) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int g = lane / 4;
  const int c = lane % 4;
  const int n = (end_tile - tile + kWarps - 1) / kWarps;
  if (n <= 0) return;
  // Pages are looked up for 32 tiles at once, a lane one.
  CacheRow rows{0, 0};
  const auto look_up = [&](int first) {
    const int mine = tile + (first + lane) * kWarps;
    if (mine < end_tile) rows = cache_row(a, pages, kv, mine * kDecodeTile);
  };
  const auto row_of = [&](int i) {
    return CacheRow{__shfl_sync(kWholeWarp, rows.first, i % 32),
                    __shfl_sync(kWholeWarp, rows.offset, i % 32)};
  };
  const auto inside = [&](CacheRow row, int base, int i) {
    row.offset += min(max(i, seen.begin - base), seen.end - 1 - base);
    return row;
  };
  Keys<Rows, kDim> keys;
  Values<Rows, kDim> values;
  const auto load_keys = [&](CacheRow row, int base) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      keys.of[i].template load<kPadded>(a, inside(row, base, 8 * i + g), c);
    }
  };
  const auto load_values = [&](CacheRow row, int base) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      values.of[i].template load<kPadded>(a, inside(row, base, i / 2 * 8 + 2 * c + i % 2), g);
    }
  };
  // Registers for a tile ahead are short at 256; 8 warps a multiprocessor hide what they can.
  constexpr bool kAhead = kDim <= 128 || (!kPadded && Rows::kCopies) || Rows::kSmall;
  look_up(0);
  CacheRow row = row_of(0);
  int base = tile * kDecodeTile;
  if (kAhead) load_keys(row, base);
  if (kAhead) load_values(row, base);
  for (int i = 0; i < n; ++i) {
    if (!kAhead) load_keys(row, base);
    float scores[kBlocks][4];
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
      score<Rows, kDim>(keys, staged + b * Shape<kDim>::kSteps * 32, lane, scores[b]);
    }
    if ((i + 1) % 32 == 0) look_up(i + 1);
    const CacheRow next_row = row_of(i + 1);
    const int next_base = base + kWarps * kDecodeTile;
    if (kAhead && i + 1 < n) load_keys(next_row, next_base);
    uint4 p[kBlocks];
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
      if (base < seen.begin || base + kDecodeTile > seen.end) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const int token = base + j / 2 * 8 + 2 * c + j % 2;
          if (token < seen.begin || token >= seen.end) scores[b][j] = -CUDART_INF_F;
        }
      }
      p[b] = weigh(running, b, lane, scores[b]);
    }
    if (!kAhead) load_values(row, base);
    add_values<Rows, kDim, kBlocks>(running, values, p);
    if (kAhead && i + 1 < n) load_values(next_row, next_base);
    row = next_row;
    base = next_base;
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

template <typename Rows, int kDim, bool kPadded>
constexpr int min_blocks(int blocks) {
  return (Rows::kSmall || (Rows::kCopies && !kPadded)) && kDim * blocks <= 128 ? 3 : 2;
}

template <typename Rows, int kDim, bool kPadded, int kBlocks>
__global__ void __launch_bounds__(kThreads, min_blocks<Rows, kDim, kPadded>(kBlocks))
    attend_decode(const AttendParams a) {
  constexpr int kHeads = 8 * kBlocks;
  constexpr int kStride = Shape<kDim>::kHeadStride;
  __shared__ uint4 staged[kBlocks * Shape<kDim>::kSteps * 32];
  __shared__ float2 stats[kWarps][kHeads];
  __shared__ __align__(16) float sums[2 * kHeads * kStride];
  let_next_start();
  wait_for_previous();
  const int chunks = (a.group + kHeads - 1) / kHeads;
  const int kv_index = static_cast<int>(blockIdx.y) / chunks;
  const HeadSpan heads = heads_of(a, kv_index, static_cast<int>(blockIdx.y) % chunks, kHeads);
  const Piece piece = find_piece(a, static_cast<int>(blockIdx.x));
  if (piece.sequence < 0) return;
  if (blockIdx.y == 0 && piece.split == 0 && threadIdx.x == 0) {
    a.plan[piece.sequence] = {piece.first_slot, piece.n_splits};
  }
  if (heads.n <= 0) return;
  const SequenceRows sequence = a.sequences[piece.sequence];
  const TokenRange seen = seen_tokens(a, sequence);
  const int first_tile = seen.begin / kDecodeTile + piece.split * piece.tiles_a_split;
  const int end_tile =
      min(first_tile + piece.tiles_a_split, (seen.end + kDecodeTile - 1) / kDecodeTile);
  stage_queries<Rows, kDim, kBlocks>(a, heads, sequence.first_row, staged);
  __syncthreads();
  Running<kDim, kBlocks> running;
#pragma unroll
  for (int b = 0; b < kBlocks; ++b) {
    running.maximum[b] = -CUDART_INF_F;
    running.weights[b] = 0;
#pragma unroll
    for (int m = 0; m < Shape<kDim>::kSteps; ++m) {
#pragma unroll
      for (int i = 0; i < 4; ++i) running.sum[b][m][i] = 0;
    }
  }
  const int warp = static_cast<int>(threadIdx.x) / 32;
  run_tiles<Rows, kDim, kPadded, kBlocks>(a, a.pages + sequence.first_page, heads.kv, seen,
                                          first_tile + warp, end_tile, staged, running);
  merge_warps<Rows, kDim, kBlocks>(running, stats, sums);
  const bool last = a.single && piece.n_splits == 1;
  const int slot = static_cast<int>(blockIdx.x);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int first = 32 * warp; first < heads.n * a.head_dim; first += kThreads) {
    const bool live = first + lane < heads.n * a.head_dim;
    const int head = live ? (first + lane) / a.head_dim : 0;
    const int at = head * kStride + (live ? first + lane - head * a.head_dim : 0);
    const float sum = sums[at] + sums[kHeads * kStride + at];
    const float2 merged = merged_stats<kHeads>(stats, head);
    const int col = heads.begin * a.head_dim + first + lane;
    if (last) {
      put_columns(a.out, sequence.first_row, col, sum / merged.y, live);
    } else if (live) {
      a.partial[static_cast<int64_t>(slot) * a.out.cols + col] = sum;
      if (first + lane == head * a.head_dim) {
        a.stats[static_cast<int64_t>(slot) * a.n_heads + heads.begin + head] = merged;
      }
    }
  }
}

template <typename Rows, int kDim, bool kPadded>
void launch_decode_dim(const Exec& exec, const AttendParams& a, dim3 grid) {
  if constexpr (kDim <= 128) {
    if (a.group > 8) {
      grid.y *= static_cast<unsigned>(div_up(a.group, 16));
      launch(exec, attend_decode<Rows, kDim, kPadded, 2>, grid, kThreads, 0, a);
      return;
    }
  }
  grid.y *= static_cast<unsigned>(div_up(a.group, 8));
  launch(exec, attend_decode<Rows, kDim, kPadded, 1>, grid, kThreads, 0, a);
}

}  // namespace spillway::cuda

// The kernel of attend for sequences with one row, and of attend_decode: a block takes all query
// heads of a KV head (up to 16) over a split of the context, so keys and values are read once. The
// last block of a sequence and its heads adds the splits up (attend_merge.cuh).
//
//   S = Q K^T      rows 0-7 of a tile are heads, rows 8-15 what rounding those to halves lost; keys
//                  come from memory straight into fragments: the dimensions are permuted so that a
//                  lane reads 16 bytes of a row, as Q is
//   O^T = V^T P^T  the weights, in halves and what rounding to those lost, are already where the
//                  product wants them; values come from memory too, two tokens' halves woven by
//                  byte permutes
//
// Shared memory holds Q and, at the end, the sums of the four warps; nothing waits for a barrier in
// the loop. In flight a warp: a tile's V and the next tile's K, 8 KB at head_dim 128.
//   Before the kernels ahead of it have ended, the kernel reads the sequences, their pages and
// slots and, for attend_decode, its first tiles. That is safe: a step's arrays are copied to the
// device before the step's first kernel starts (a copy is not overlapped), no kernel of the step
// writes them, and cached rows of earlier tokens were written by earlier steps, which have ended
// before that copy. Of this layer's cache a step's kernels write the new tokens alone: this kernel
// itself, after it has waited, and it reads their rows again. attend cannot know whether a row's
// earlier tokens are of this step, so it waits before it reads the cache.
//   Bytes: 2 * head_dim * (K and V) a token and KV head, once. Best measured: see docs/bench.
#pragma once

#include "kernels/core/int_math.h"
#include "kernels/cuda/attend_append.cuh"
#include "kernels/cuda/attend_common.cuh"
#include "kernels/cuda/attend_merge.cuh"
#include "kernels/cuda/attend_running.cuh"
#include "kernels/cuda/attend_split.cuh"
#include "kernels/cuda/attend_tile.cuh"

namespace spillway::cuda {

// Q times scale as tiles' left sides, [block of 8 heads][step][lane]. quad(head, dim): four values.
template <typename Rows, int kDim, int kBlocks, typename F>
__device__ __forceinline__ void stage_queries(const AttendParams& a, const HeadSpan& heads,
                                              const F& quad, uint4* staged) {
  constexpr int kSteps = Shape<kDim>::kSteps;
  for (int i = static_cast<int>(threadIdx.x); i < kBlocks * kSteps * 32; i += kThreads) {
    const int lane = i % 32;
    const int head = i / (32 * kSteps) * 8 + lane / 4;
    const int dim = Rows::template key_dim<kDim>(i / 32 % kSteps, lane % 4);
    float4 q = {0, 0, 0, 0};
    if (head < heads.n && dim < a.head_dim) q = quad(head, dim);
    // Rounded, lest one of two kernels makes a fused multiply-add of it and the other does not.
    const float x[4] = {__fmul_rn(q.x, a.scale_log2), __fmul_rn(q.y, a.scale_log2),
                        __fmul_rn(q.z, a.scale_log2), __fmul_rn(q.w, a.scale_log2)};
    const uint32_t first = half_pair(x[0], x[1]);
    const uint32_t second = half_pair(x[2], x[3]);
    const float2 near_first = float_pair(first);
    const float2 near_second = float_pair(second);
    staged[i] = {first, half_pair(x[0] - near_first.x, x[1] - near_first.y), second,
                 half_pair(x[2] - near_second.x, x[3] - near_second.y)};
  }
}

// What a block works on, in shared memory from the start to the end: registers are short in the
// loop between.
struct Work {
  Piece piece;
  HeadSpan heads;
};

// Tiles first, first + 4, ... of a warp. Rows outside of `seen` are not touched: lanes that have
// nothing else to read repeat the nearest that is inside, for a weight of 0.
template <typename Rows, int kDim, bool kPadded, int kBlocks>
struct Tiles {
  // Registers for a tile ahead are short at 256; 8 warps a multiprocessor hide what they can.
  static constexpr bool kAhead = kDim <= 128 || (!kPadded && Rows::kCopies) || Rows::kSmall;

  TokenRange seen;
  int n;                // tiles of the warp
  int base;             // first token of the tile that is held
  CacheRow row;         // of the tile that is held
  CacheRow rows{0, 0};  // of 32 tiles, a lane's is one
  Keys<Rows, kDim> keys;
  Values<Rows, kDim> values;

  __device__ __forceinline__ Tiles(const AttendParams& a, const Piece& piece, int kv)
      : seen(seen_tokens(a, piece.rows)) {
    const int first = first_tile(seen, piece);
    n = max(0, (end_tile(seen, piece) - first + kWarps - 1) / kWarps);
    base = first * kDecodeTile;
    look_up(a, piece, kv, 0);
    row = row_of(0);
  }
  static __device__ __forceinline__ int first_tile(TokenRange seen, const Piece& piece) {
    return seen.begin / kDecodeTile + piece.split * piece.tiles_a_split +
           static_cast<int>(threadIdx.x) / 32;
  }
  static __device__ __forceinline__ int end_tile(TokenRange seen, const Piece& piece) {
    return min(seen.begin / kDecodeTile + (piece.split + 1) * piece.tiles_a_split,
               (seen.end + kDecodeTile - 1) / kDecodeTile);
  }
  static __device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x) % 32; }

  // Pages are looked up for 32 tiles at once, a lane one.
  __device__ __forceinline__ void look_up(const AttendParams& a, const Piece& piece, int kv,
                                          int first) {
    const int mine = first_tile(seen, piece) + (first + lane()) * kWarps;
    if (mine < end_tile(seen, piece)) {
      rows = cache_row(a, a.pages + piece.rows.first_page, kv, mine * kDecodeTile);
    }
  }
  __device__ __forceinline__ CacheRow row_of(int i) const {
    return {__shfl_sync(kWholeWarp, rows.first, i % 32),
            __shfl_sync(kWholeWarp, rows.offset, i % 32)};
  }
  static __device__ __forceinline__ CacheRow inside(TokenRange seen, CacheRow row, int base,
                                                    int i) {
    row.offset += min(max(i, seen.begin - base), seen.end - 1 - base);
    return row;
  }
  // Which token of a tile a lane's key i, and its value i, is.
  static __device__ __forceinline__ int key_token(int i) { return 8 * i + lane() / 4; }
  static __device__ __forceinline__ int value_token(int i) {
    return i / 2 * 8 + 2 * (lane() % 4) + i % 2;
  }
  __device__ __forceinline__ void load_key(const AttendParams& a, CacheRow at, int first, int i) {
    keys.of[i].template load<kPadded>(a, inside(seen, at, first, key_token(i)), lane() % 4);
  }
  __device__ __forceinline__ void load_value(const AttendParams& a, CacheRow at, int first, int i) {
    values.of[i].template load<kPadded>(a, inside(seen, at, first, value_token(i)), lane() / 4);
  }
  __device__ __forceinline__ void load_keys(const AttendParams& a, CacheRow at, int first) {
#pragma unroll
    for (int i = 0; i < 2; ++i) load_key(a, at, first, i);
  }
  __device__ __forceinline__ void load_values(const AttendParams& a, CacheRow at, int first) {
#pragma unroll
    for (int i = 0; i < 4; ++i) load_value(a, at, first, i);
  }

  __device__ __forceinline__ void load_first(const AttendParams& a) {
    if (!kAhead || n == 0) return;
    load_keys(a, row, base);
    load_values(a, row, base);
  }
  // The newest token's row, and what repeats it, once more: it was not there before.
  __device__ __forceinline__ void load_newest(const AttendParams& a) {
    if (!kAhead || n == 0 || base + kDecodeTile < seen.end) return;
    const auto is_newest = [&](int i) { return max(base + i, seen.begin) >= seen.end - 1; };
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (is_newest(key_token(i))) load_key(a, row, base, i);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (is_newest(value_token(i))) load_value(a, row, base, i);
    }
  }

  __device__ __forceinline__ void run(const AttendParams& a, const Work& work, const uint4* staged,
                                      Running<kDim, kBlocks>& running) {
    for (int i = 0; i < n; ++i) {
      if (!kAhead) load_keys(a, row, base);
      float scores[kBlocks][4];
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
        score<Rows, kDim>(keys, staged + b * Shape<kDim>::kSteps * 32, lane(), scores[b]);
      }
      if ((i + 1) % 32 == 0) look_up(a, work.piece, work.heads.kv, i + 1);
      const CacheRow next_row = row_of(i + 1);
      const int next_base = base + kWarps * kDecodeTile;
      if (kAhead && i + 1 < n) load_keys(a, next_row, next_base);
      uint4 p[kBlocks];
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
        if (base < seen.begin || base + kDecodeTile > seen.end) {
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            const int token = base + value_token(j);
            if (token < seen.begin || token >= seen.end) scores[b][j] = -CUDART_INF_F;
          }
        }
        p[b] = weigh(running, b, lane(), scores[b]);
      }
      if (!kAhead) load_values(a, row, base);
      add_values<Rows, kDim, kBlocks>(running, values, p);
      if (kAhead && i + 1 < n) load_values(a, next_row, next_base);
      row = next_row;
      base = next_base;
    }
  }
};

template <typename Rows, int kDim, bool kPadded>
constexpr int min_blocks(int blocks) {
  return (Rows::kSmall || (Rows::kCopies && !kPadded)) && kDim * blocks <= 128 ? 3 : 2;
}

// Q into fragments and the first tiles' rows into registers. Of attend_decode: rotated on the way,
// the new token's row into the cache by the blocks with a sequence's last split.
template <bool kAppend, typename Rows, int kDim, bool kPadded, int kBlocks>
__device__ __forceinline__ void start(const AttendParams& a, const Piece& piece,
                                      const HeadSpan& heads,
                                      Tiles<Rows, kDim, kPadded, kBlocks>& tiles, uint4* staged,
                                      float* turned) {
  constexpr int kStride = Shape<kDim>::kHeadStride;
  const int64_t row = piece.rows.first_row;
  const int head_dim = kPadded ? a.head_dim : kDim;
  if constexpr (!kAppend) {
    wait_for_previous();
    tiles.load_first(a);
    const float* q = a.q + row * a.q_stride + static_cast<int64_t>(heads.begin) * head_dim;
    stage_queries<Rows, kDim, kBlocks>(
        a, heads,
        [&](int head, int dim) {
          return __ldcg(reinterpret_cast<const float4*>(q + head * head_dim + dim));
        },
        staged);
    return;
  }
  const bool newest = piece.split == piece.n_splits - 1;
  tiles.load_first(a);
  KvPlace place{-1, 0};
  if (newest) place = kv_place(a.append.cache, __ldcg(a.append.slots + row));
  wait_for_previous();
  NewToken<kThreads, kDim> token;
  if (place.page >= 0) token.load(a.append, row, heads.kv);
  turn_queries<kThreads, kStride>(a, heads, head_dim, row, turned);
  if (place.page >= 0) {
    token.store(a.append, place, heads.kv);
    if (blockIdx.y == 0) store_unread_heads<kThreads, kDim>(a, row, place);
  }
  __syncthreads();
  if (newest) tiles.load_newest(a);
  stage_queries<Rows, kDim, kBlocks>(
      a, heads,
      [&](int head, int dim) {
        return *reinterpret_cast<const float4*>(turned + head * kStride + dim);
      },
      staged);
}

// The block's sums, in two halves under their statistics, to the step's output; or to the workspace
// and, from there, by the last block of the sequence and these heads.
template <int kHeads, int kStride>
__device__ __forceinline__ void finish(const AttendParams& a, const Work& work, int head_dim,
                                       float2 (*stats)[kHeads], float* sums) {
  const Piece piece = work.piece;
  const HeadSpan heads = work.heads;
  const auto slot = static_cast<int>(blockIdx.x);
  const bool alone = piece.n_splits == 1;
  for_quads<kThreads>(heads.n, head_dim, [&](int head, int dim) {
    auto* at = reinterpret_cast<float4*>(sums + head * kStride + dim);
    const float4 even = *at;
    const float4 odd = at[kHeads * kStride / 4];
    const float4 sum = {even.x + odd.x, even.y + odd.y, even.z + odd.z, even.w + odd.w};
    const float2 merged = merged_stats<kHeads>(stats, head);
    if (alone) {
      *at = {sum.x / merged.y, sum.y / merged.y, sum.z / merged.y, sum.w / merged.y};
      return;
    }
    put_partial(a, slot, (heads.begin + head) * head_dim + dim, sum);
    if (dim == 0) a.stats[static_cast<int64_t>(slot) * a.n_heads + heads.begin + head] = merged;
  });
  if (!alone && !merge_splits<kThreads, kStride>(a, piece, heads, head_dim, stats[0], sums)) {
    return;
  }
  __syncthreads();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int n = heads.n * head_dim;
  for (int first = static_cast<int>(threadIdx.x) - lane; first < n; first += kThreads) {
    const bool live = first + lane < n;
    const int head = live ? (first + lane) / head_dim : 0;
    const int dim = live ? first + lane - head * head_dim : 0;
    put_columns(a.out, piece.rows.first_row, heads.begin * head_dim + first + lane,
                sums[head * kStride + dim], live);
  }
}

template <bool kAppend, typename Rows, int kDim, bool kPadded, int kBlocks>
__global__ void __launch_bounds__(kThreads, min_blocks<Rows, kDim, kPadded>(kBlocks))
    attend_split(const AttendParams a) {
  constexpr int kHeads = 8 * kBlocks;
  constexpr int kStride = Shape<kDim>::kHeadStride;
  __shared__ uint4 staged[kBlocks * Shape<kDim>::kSteps * 32];
  __shared__ float2 stats[kWarps][kHeads];
  __shared__ __align__(16) float sums[2 * kHeads * kStride];
  __shared__ Work work;
  let_next_start();
  const int chunks = (a.group + kHeads - 1) / kHeads;
  const auto span = static_cast<int>(blockIdx.y);
  const HeadSpan heads = chunks == 1 ? heads_of(a, span, 0, kHeads)
                                     : heads_of(a, span / chunks, span % chunks, kHeads);
  const Piece piece = find_piece(a, static_cast<int>(blockIdx.x));
  if (piece.sequence < 0 || heads.n <= 0) {
    wait_for_previous();  // or a step without one-row sequences would end before the one ahead
    return;
  }
  if (threadIdx.x == 0) work = {piece, heads};
  Tiles<Rows, kDim, kPadded, kBlocks> tiles(a, piece, heads.kv);
  start<kAppend, Rows, kDim, kPadded, kBlocks>(a, piece, heads, tiles, staged, sums);
  __syncthreads();
  Running<kDim, kBlocks> running;
  tiles.run(a, work, staged, running);
  merge_warps<Rows, kDim, kBlocks>(running, stats, sums);
  finish<kHeads, kStride>(a, work, kPadded ? a.head_dim : kDim, stats, sums);
}

template <typename Rows, int kDim, bool kPadded, int kBlocks>
void launch_decode_blocks(const Exec& exec, const AttendParams& a, dim3 grid) {
  grid.y *= static_cast<unsigned>(div_up(a.group, 8 * kBlocks));
  if (a.append.wanted) {
    launch(exec, attend_split<true, Rows, kDim, kPadded, kBlocks>, grid, kThreads, 0, a);
  } else {
    launch(exec, attend_split<false, Rows, kDim, kPadded, kBlocks>, grid, kThreads, 0, a);
  }
}

template <typename Rows, int kDim, bool kPadded>
void launch_decode_dim(const Exec& exec, const AttendParams& a, dim3 grid) {
  if constexpr (kDim <= 128) {
    if (a.group > 8) return launch_decode_blocks<Rows, kDim, kPadded, 2>(exec, a, grid);
  }
  launch_decode_blocks<Rows, kDim, kPadded, 1>(exec, a, grid);
}

}  // namespace spillway::cuda

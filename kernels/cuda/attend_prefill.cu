// attend for sequences with several rows: a block takes up to 128 queries of a KV head, counted row
// by row and head by head, and streams keys and values through shared memory, a tile ahead
// (cp.async). Online softmax with the scores in registers (Dao, FlashAttention-2, 2023).
//   Flops: 4 * head_dim for a query and a token it sees. Shared memory is read at 2 * head_dim * 4
//   bytes a token by every warp, which bounds the tile of 16 queries a warp at 460 TFLOP/s on an
//   H100. Best measured: see docs/bench.
// A token of the sequence that a row does not see has weight 0; if it holds NaN the row gets one.
#include <math_constants.h>

#include "kernels/core/int_math.h"
#include "kernels/cuda/attend_codes.cuh"
#include "kernels/cuda/attend_common.cuh"
#include "kernels/cuda/attend_rows.cuh"
#include "kernels/cuda/attend_tile.cuh"

namespace spillway::cuda {
namespace {

template <int kDimIn>
struct Tile {
  static constexpr int kDim = kDimIn;
  static constexpr int kWarps = kDim <= 128 ? 8 : 4;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kQueries = 16 * kWarps;
  static constexpr int kTokens = kDim <= 128 ? 64 : 32;
  static constexpr int kStride = kDim + 8;  // halves: rows of 8 matrices lie in different banks
  static constexpr int kHalves = kTokens * kStride;
  static constexpr bool kStaged = kDim > 128;  // Q in shared memory, not in registers
  static constexpr int kSteps = kDim / 16;
  static constexpr int kSharedBytes =
      2 * 2 * kHalves * 2 + (kStaged ? kWarps * kSteps * 32 * 16 : 0);
};

struct Queries {
  SequenceRows sequence;
  HeadSpan heads;
  int first;  // query of the block
  int n;      // queries of the sequence and KV head
};

// A query's row in the step, its place in q and out, and what it sees.
struct Place {
  int row;
  int col;
  int begin;
  int end;
  bool live;
};

__device__ __forceinline__ Place place_of(const AttendParams& a, const Queries& queries, int i) {
  const int query = min(i, queries.n - 1);
  const int row = query / queries.heads.n;
  const int end = queries.sequence.first_position + row + 1;
  return {queries.sequence.first_row + row,
          (queries.heads.begin + query - row * queries.heads.n) * a.head_dim,
          a.window > 0 ? max(0, end - a.window) : 0, end, i < queries.n};
}

__device__ __forceinline__ uint32_t query_pair(const AttendParams& a, const Place& p, int dim) {
  if (dim >= a.head_dim) return 0;
  const float2 q = __ldcg(reinterpret_cast<const float2*>(a.q + p.row * a.q_stride + p.col + dim));
  return half_pair(q.x * a.scale_log2, q.y * a.scale_log2);
}

__device__ __forceinline__ uint4 query_step(const AttendParams& a, const Place (&places)[2],
                                            int step, int c) {
  const int dim = 16 * step + 2 * c;
  return {query_pair(a, places[0], dim), query_pair(a, places[1], dim),
          query_pair(a, places[0], dim + 8), query_pair(a, places[1], dim + 8)};
}

// Tokens base, ... of K and V to shared memory; what is outside of [begin, end) repeats the nearest
// that is inside, so that nothing but the sequence's own tokens is read.
template <typename Rows, typename T>
__device__ __forceinline__ void fetch(const AttendParams& a, const int32_t* pages, int kv, int base,
                                      int begin, int end, __half* k, __half* v) {
  constexpr int kPieces = T::kDim / 8;
  constexpr int kTogether = Rows::kCopies ? 16 : 2;  // what passes through registers
#pragma unroll kTogether
  for (int first = 0; first < T::kTokens * kPieces; first += T::kThreads) {
    const int i = first + static_cast<int>(threadIdx.x);
    if (T::kTokens * kPieces % T::kThreads != 0 && i >= T::kTokens * kPieces) break;
    const int token = min(max(base + i / kPieces, begin), end - 1);
    const int dim = i % kPieces * 8 < a.head_dim ? i % kPieces * 8 : 0;
    const CacheRow from = cache_row(a, pages, kv, token);
    const int to = i / kPieces * T::kStride + i % kPieces * 8;
    if constexpr (Rows::kCopies) {
      copy_async(k + to, Rows::address(a, a.k, from, dim));
      copy_async(v + to, Rows::address(a, a.v, from, dim));
    } else {
      *reinterpret_cast<uint4*>(k + to) = Rows::load8(a, a.k, from, dim);
      *reinterpret_cast<uint4*>(v + to) = Rows::load8(a, a.v, from, dim);
    }
  }
}

template <typename T>
struct State {
  float maximum[2];  // of rows g and g + 8
  float weights[2];
  float sum[T::kDim / 8][4];
  float scores[T::kTokens / 8][4];
};

template <typename T>
__device__ __forceinline__ void start(State<T>& s) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    s.maximum[half] = -CUDART_INF_F;
    s.weights[half] = 0;
  }
#pragma unroll
  for (int n = 0; n < T::kDim / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) s.sum[n][i] = 0;
  }
}

template <typename T>
__device__ __forceinline__ void clear_scores(State<T>& s) {
#pragma unroll
  for (int n = 0; n < T::kTokens / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) s.scores[n][i] = 0;
  }
}

template <typename T>
__device__ __forceinline__ void score(State<T>& s, const uint4& q, int step, int lane,
                                      const __half* k) {
  const __half* row = k + (lane % 8 + lane / 16 * 8) * T::kStride + step * 16 + lane / 8 % 2 * 8;
#pragma unroll
  for (int n = 0; n < T::kTokens / 8; n += 2) {
    const uint4 b = load_matrices(row + n * 8 * T::kStride);
    multiply_add(s.scores[n], q, b.x, b.y);
    multiply_add(s.scores[n + 1], q, b.z, b.w);
  }
}

template <typename T>
__device__ __forceinline__ void mask(State<T>& s, const Place (&places)[2], int base, int c) {
#pragma unroll
  for (int n = 0; n < T::kTokens / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int token = base + n * 8 + 2 * c + i % 2;
      if (token < places[i / 2].begin || token >= places[i / 2].end) {
        s.scores[n][i] = -CUDART_INF_F;
      }
    }
  }
}

// Scores to weights, in place; sums under a smaller maximum shrink.
template <typename T>
__device__ __forceinline__ void weigh(State<T>& s) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float maximum = s.maximum[half];
#pragma unroll
    for (int n = 0; n < T::kTokens / 8; ++n) {
      maximum = fmaxf(maximum, fmaxf(s.scores[n][2 * half], s.scores[n][2 * half + 1]));
    }
    maximum = fmaxf(maximum, __shfl_xor_sync(kWholeWarp, maximum, 1));
    maximum = fmaxf(maximum, __shfl_xor_sync(kWholeWarp, maximum, 2));
    // With a window a row may not have seen a token yet.
    const float base = maximum == -CUDART_INF_F ? 0.0f : maximum;
    const float shrink = power_of_two(s.maximum[half] - base);
    s.maximum[half] = maximum;
    float weights = 0;
#pragma unroll
    for (int n = 0; n < T::kTokens / 8; ++n) {
#pragma unroll
      for (int i = 2 * half; i < 2 * half + 2; ++i) {
        s.scores[n][i] = power_of_two(s.scores[n][i] - base);
        weights += s.scores[n][i];
      }
    }
    s.weights[half] = s.weights[half] * shrink + weights;
#pragma unroll
    for (int n = 0; n < T::kDim / 8; ++n) {
      s.sum[n][2 * half] *= shrink;
      s.sum[n][2 * half + 1] *= shrink;
    }
  }
}

template <typename T>
__device__ __forceinline__ void add_values(State<T>& s, int lane, const __half* v) {
#pragma unroll
  for (int step = 0; step < T::kTokens / 16; ++step) {
    const float(&low)[4] = s.scores[2 * step];
    const float(&high)[4] = s.scores[2 * step + 1];
    const uint4 p = {half_pair(low[0], low[1]), half_pair(low[2], low[3]),
                     half_pair(high[0], high[1]), half_pair(high[2], high[3])};
    const __half* row = v + (step * 16 + lane % 16) * T::kStride + lane / 16 * 8;
#pragma unroll
    for (int n = 0; n < T::kDim / 8; n += 2) {
      const uint4 b = load_matrices_transposed(row + n * 8);
      multiply_add(s.sum[n], p, b.x, b.y);
      multiply_add(s.sum[n + 1], p, b.z, b.w);
    }
  }
}

// 32 columns of a row in int8, two of each 8 in this lane; the four lanes of a row act together.
__device__ __forceinline__ void put_block(const AttendOut& out, const float (&x)[8], int64_t row,
                                          int block, int c, bool live) {
  unsigned max_bits = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) max_bits = max(max_bits, __float_as_uint(x[i]) & 0x7fffffffu);
  max_bits = max(max_bits, __shfl_xor_sync(kWholeWarp, max_bits, 1));
  max_bits = max(max_bits, __shfl_xor_sync(kWholeWarp, max_bits, 2));
  const BlockScale scale = block_scale(max_bits);
  const int64_t at = static_cast<int64_t>(block) * out.padded + row;
  int sums[2] = {0, 0};
#pragma unroll
  for (int n = 0; n < 4; ++n) {
    const int first = block_code(x[2 * n], scale.inverse);
    const int second = block_code(x[2 * n + 1], scale.inverse);
    sums[n / 2] += first + second;
    const char2 codes = {static_cast<signed char>(first), static_cast<signed char>(second)};
    const int place = quad_place(2 * n + c / 2) * 4 + c % 2 * 2;
    if (live) *reinterpret_cast<char2*>(out.q8 + at * 32 + place) = codes;
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    sums[i] += __shfl_xor_sync(kWholeWarp, sums[i], 1);
    sums[i] += __shfl_xor_sync(kWholeWarp, sums[i], 2);
  }
  if (live && c == 0) {
    out.blocks[at] = {scale.scale, {static_cast<int16_t>(sums[0]), static_cast<int16_t>(sums[1])}};
  }
}

template <typename T>
__device__ __forceinline__ void put_rows(const AttendParams& a, State<T>& s,
                                         const Place (&places)[2], int c) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float weights = s.weights[half];
    weights += __shfl_xor_sync(kWholeWarp, weights, 1);
    weights += __shfl_xor_sync(kWholeWarp, weights, 2);
    const Place& place = places[half];
    const int64_t row = static_cast<int64_t>(place.row) * a.out.cols + place.col;
#pragma unroll
    for (int n = 0; n < T::kDim / 8; ++n) {
      float& x = s.sum[n][2 * half];
      float& y = s.sum[n][2 * half + 1];
      x /= weights;
      y /= weights;
      if (!place.live || 8 * n >= a.head_dim) continue;
      const int64_t at = row + 8 * n + 2 * c;
      if (a.out.x != nullptr) *reinterpret_cast<float2*>(a.out.x + at) = {x, y};
      if (a.out.bf16 != nullptr) {
        *reinterpret_cast<__nv_bfloat162*>(a.out.bf16 + at) = __floats2bfloat162_rn(x, y);
      }
    }
    if (a.out.q8 == nullptr) continue;
#pragma unroll
    for (int n = 0; n < T::kDim / 8 / 4 * 4; n += 4) {
      if (8 * n >= a.head_dim) break;
      float x[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) x[i] = s.sum[n + i / 2][2 * half + i % 2];
      put_block(a.out, x, place.row, (place.col + 8 * n) / 32, c, place.live);
    }
  }
}

template <typename Rows, typename T>
__global__ void __launch_bounds__(T::kThreads, 1) attend_prefill(const AttendParams a) {
  extern __shared__ __align__(16) unsigned char shared[];
  auto* k = reinterpret_cast<__half*>(shared);
  __half* v = k + 2 * T::kHalves;
  let_next_start();
  wait_for_previous();
  Queries queries;
  queries.sequence = a.sequences[blockIdx.z];
  queries.heads = heads_of(a, static_cast<int>(blockIdx.y), 0, a.group);
  queries.n = queries.sequence.n_rows * queries.heads.n;
  // Last tiles first: they see most.
  queries.first = static_cast<int>(gridDim.x - 1 - blockIdx.x) * T::kQueries;
  if (queries.sequence.n_rows <= 1 || queries.first >= queries.n) return;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int c = lane % 4;
  const int mine = queries.first + 16 * warp;
  const Place places[2] = {place_of(a, queries, mine + lane / 4),
                           place_of(a, queries, mine + lane / 4 + 8)};
  uint4 q[T::kStaged ? 1 : T::kSteps];
  uint4* staged = reinterpret_cast<uint4*>(v + 2 * T::kHalves) + warp * T::kSteps * 32 + lane;
#pragma unroll
  for (int step = 0; step < T::kSteps; ++step) {
    const uint4 part = query_step(a, places, step, c);
    if constexpr (T::kStaged) {
      staged[step * 32] = part;  // read by this lane alone
    } else {
      q[step] = part;
    }
  }
  State<T> s;
  start(s);
  const Place first = place_of(a, queries, queries.first);
  const Place last = place_of(a, queries, queries.first + T::kQueries - 1);
  const int32_t* pages = a.pages + queries.sequence.first_page;
  int base = first.begin / T::kTokens * T::kTokens;
  fetch<Rows, T>(a, pages, queries.heads.kv, base, first.begin, last.end, k, v);
  for (int stage = 0; base < last.end; base += T::kTokens, stage ^= 1) {
    wait_for_copies();
    __syncthreads();  // the tile is there, and everybody is done with the one before
    const int next = base + T::kTokens;
    if (next < last.end) {
      fetch<Rows, T>(a, pages, queries.heads.kv, next, first.begin, last.end,
                     k + (stage ^ 1) * T::kHalves, v + (stage ^ 1) * T::kHalves);
    }
    clear_scores(s);
#pragma unroll
    for (int step = 0; step < T::kSteps; ++step) {
      if constexpr (T::kStaged) {
        score(s, staged[step * 32], step, lane, k + stage * T::kHalves);
      } else {
        score(s, q[step], step, lane, k + stage * T::kHalves);
      }
    }
    if (next > first.end || base < last.begin) mask(s, places, base, c);
    weigh(s);
    add_values(s, lane, v + stage * T::kHalves);
  }
  put_rows(a, s, places, c);
}

template <typename Rows, int kDim>
void launch_dim(const Exec& exec, const AttendParams& a, int64_t most_rows) {
  using T = Tile<kDim>;
  const int kv_heads = (a.first_head + a.n_heads - 1) / a.group - a.first_head / a.group + 1;
  const int64_t heads = a.group < a.n_heads ? a.group : a.n_heads;
  const dim3 grid(static_cast<unsigned>(div_up(most_rows * heads, T::kQueries)),
                  static_cast<unsigned>(kv_heads), static_cast<unsigned>(a.n_sequences));
  static const bool allowed = [] {
    CU(cudaFuncSetAttribute(attend_prefill<Rows, T>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                            T::kSharedBytes));
    return true;
  }();
  CHECK(allowed);
  launch(exec, attend_prefill<Rows, T>, grid, T::kThreads, T::kSharedBytes, a);
}

template <typename Rows>
void launch_rows(const Exec& exec, const AttendParams& a, int64_t most_rows) {
  if (a.head_dim <= 64) return launch_dim<Rows, 64>(exec, a, most_rows);
  if constexpr (!Rows::kSmall) {
    if (a.head_dim == 80) return launch_dim<Rows, 80>(exec, a, most_rows);
  }
  if (a.head_dim == 96) return launch_dim<Rows, 96>(exec, a, most_rows);
  if (a.head_dim <= 128) return launch_dim<Rows, 128>(exec, a, most_rows);
  return launch_dim<Rows, 256>(exec, a, most_rows);
}

}  // namespace

void launch_prefill(const Exec& exec, const AttendParams& a, KvType type, int64_t most_rows) {
  switch (type) {
    case KvType::kF16:
      return launch_rows<HalfRows>(exec, a, most_rows);
    case KvType::kF32:
      return launch_rows<FloatRows>(exec, a, most_rows);
    case KvType::kQ8_0:
      return launch_rows<ByteRows>(exec, a, most_rows);
    case KvType::kQ4_0:
      return launch_rows<NibbleRows>(exec, a, most_rows);
  }
}

}  // namespace spillway::cuda

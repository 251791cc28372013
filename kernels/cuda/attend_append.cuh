// What attend_decode.cuh does on its way for attend_decode: rotated queries, and the new token's
// key and value to the cache, with the bits of rope_kv_write.
#pragma once

#include "kernels/cuda/attend_common.cuh"

namespace spillway::cuda {

// A key's and a value's row of the new token of one KV head, an element or two a thread. Between
// load() and store() other loads can be asked for.
template <int kThreads, int kDim>
struct NewToken {
  static constexpr int kValues = (2 * kDim + kThreads - 1) / kThreads;
  Pair pairs[kValues];

  static __device__ __forceinline__ int element(int i) {
    return static_cast<int>(threadIdx.x) + i * kThreads;
  }
  __device__ __forceinline__ void load(const AppendRows& r, int64_t row, int head) {
    const int head_dim = r.rotation.head_dim;
    const float* k = r.k + row * r.k_stride + static_cast<int64_t>(head) * head_dim;
    const float* v = r.v + row * r.v_stride + static_cast<int64_t>(head) * head_dim;
#pragma unroll
    for (int i = 0; i < kValues; ++i) {
      const int at = element(i);
      if (at < head_dim) {
        pairs[i] = load_pair(r.rotation, row, k, pair_of(r.rotation, at));
      } else if (at < 2 * head_dim) {
        pairs[i].x = __ldcg(v + at - head_dim);
      }
    }
  }
  // Blocks of codes: head_dim is a multiple of 32, so a warp has a block and goes one way.
  __device__ __forceinline__ void store(const AppendRows& r, KvPlace place, int head) const {
    const int head_dim = r.rotation.head_dim;
#pragma unroll
    for (int i = 0; i < kValues; ++i) {
      const int at = element(i);
      if (at >= 2 * head_dim) break;
      const bool key = at < head_dim;
      const int dim = key ? at : at - head_dim;
      float value = pairs[i].x;
      if (key) {
        const float2 turned = turn(pairs[i]);
        value = pairs[i].first == dim ? turned.x : turned.y;
      }
      std::byte* plane = key ? r.cache.k : r.cache.v;
      if (kv_quantized(r.cache.type)) {
        store_code(r.cache, plane, place, head, dim, value);
      } else {
        store_value(r.cache, plane, place, head, dim, value);
      }
    }
  }
};

// KV heads of the cache that no query head of the rank reads: their rows are written all the same.
template <int kThreads, int kDim>
__device__ __forceinline__ void store_unread_heads(const AttendParams& a, int64_t row,
                                                   KvPlace place) {
  const int first = a.first_group - a.first_kv_head;
  const int last = (a.first_head + a.n_heads - 1) / a.group - a.first_kv_head;
  for (int head = 0; head < a.n_kv_heads; ++head) {
    if (head >= first && head <= last) continue;
    NewToken<kThreads, kDim> token;
    token.load(a.append, row, head);
    token.store(a.append, place, head);
  }
}

// The block's queries, rotated, to turned[head * kStride + dim].
template <int kThreads, int kStride>
__device__ __forceinline__ void turn_queries(const AttendParams& a, const HeadSpan& heads,
                                             int head_dim, int64_t row, float* turned) {
  constexpr int kAhead = 2;
  const int half = head_dim / 2;
  const int n = heads.n * half;
  const float* q = a.q + row * a.q_stride + static_cast<int64_t>(heads.begin) * head_dim;
  for (int begin = static_cast<int>(threadIdx.x); begin < n; begin += kAhead * kThreads) {
    Pair pairs[kAhead];
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      const int i = begin + j * kThreads;
      const int head = i / half;
      if (i < n) pairs[j] = load_pair(a.append.rotation, row, q + head * head_dim, i - head * half);
    }
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      const int i = begin + j * kThreads;
      if (i >= n) break;
      float* to = turned + i / half * kStride;
      const float2 x = turn(pairs[j]);
      to[pairs[j].first] = x.x;
      to[pairs[j].second] = x.y;
    }
  }
}

}  // namespace spillway::cuda

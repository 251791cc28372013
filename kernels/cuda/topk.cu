// top_k in two kernels: every slice of a row gives its k best, then one thread block takes the k
// best of those and sorts them. Chosen by a threshold that is found two bits at a time by counting,
// so nothing depends on the values but the number of rounds, and no float is added. Reads 4 bytes a
// logit, once. Not timed on a device yet.
//
// A logit's key is 64 bits, all keys of a row differ and order as candidates do: `high` is the
// float's bits made to order as integers (NaN below all numbers, +0 == -0), `low` the column's
// complement. 0 stands for nothing.
#include <algorithm>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ops.h"

namespace spillway::cuda {
namespace {

constexpr unsigned kAllLanes = 0xffffffffu;

struct Key {
  uint32_t high;
  uint32_t low;
};

__device__ __forceinline__ uint32_t high_of(float logit) {
  if (isnan(logit)) return 1;
  const uint32_t bits = logit == 0.0f ? 0u : __float_as_uint(logit);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ uint32_t low_of(int64_t column) {
  return ~static_cast<uint32_t>(column);
}
__device__ __forceinline__ uint64_t word_of(Key key) {
  return static_cast<uint64_t>(key.high) << 32 | key.low;
}

// How a row is cut: slices of as many columns as the first kernel's thread block holds in
// registers. The second kernel holds kMostKeys of them.
constexpr int kSelectThreads = 512;
constexpr int kSelectKeys = 16;  // a thread
constexpr int64_t kMostKeys = kSelectThreads * kSelectKeys;
constexpr int kSmallThreads = 256;
constexpr int kSmallKeys = 8;
constexpr int kLargeThreads = 512;
constexpr int kLargeKeys = 16;
constexpr int kHugeKeys = 32;
constexpr int64_t kSmallSlice = kSmallThreads * kSmallKeys;  // 2048
constexpr int64_t kLargeSlice = kLargeThreads * kLargeKeys;  // 8192
constexpr int64_t kHugeSlice = kLargeThreads * kHugeKeys;    // 16384
constexpr int64_t kMostColumns = kMostKeys / kMaxCandidates * kHugeSlice;

int64_t slice_columns(int64_t cols, int64_t k) {
  for (const int64_t slice : {kSmallSlice, kLargeSlice}) {
    if (div_up(cols, slice) * k <= kMostKeys) return slice;
  }
  return kHugeSlice;
}

// Sums of two counts below 65536 and a third over the thread block, in every thread, with one
// barrier. Two sets of partial sums in turns: a set is written again only after a barrier that its
// readers have passed.
template <int kThreads>
struct Counter {
  static constexpr int kWarps = kThreads / 32;
  uint2 (*partial)[kWarps];  // [2][kWarps], shared
  int turn = 0;

  __device__ __forceinline__ uint2 sums(uint32_t two_counts, uint32_t third) {
    const unsigned lane = threadIdx.x % 32;
    two_counts = __reduce_add_sync(kAllLanes, two_counts);
    third = __reduce_add_sync(kAllLanes, third);
    if (lane == 0) partial[turn][threadIdx.x / 32] = {two_counts, third};
    __syncthreads();
    const uint2 mine = lane < kWarps ? partial[turn][lane] : uint2{0, 0};
    turn ^= 1;
    return {__reduce_add_sync(kAllLanes, mine.x), __reduce_add_sync(kAllLanes, mine.y)};
  }
};

// A value that `found` >= wanted of the thread block's values reach: exactly `wanted` of them, or
// it is the wanted-th greatest value and several are equal to it. At least `wanted` values must not
// be 0.
struct Threshold {
  uint32_t value;
  uint32_t found;
};
template <int kThreads, int kKeys>
__device__ __forceinline__ Threshold find_threshold(const uint32_t (&values)[kKeys],
                                                    uint32_t wanted, Counter<kThreads>& counter) {
  Threshold threshold{0, ~0u};
  for (int shift = 30; shift >= 0 && threshold.found != wanted; shift -= 2) {
    const uint32_t one = threshold.value | 1u << shift;
    const uint32_t two = threshold.value | 2u << shift;
    const uint32_t three = threshold.value | 3u << shift;
    uint32_t reach_one = 0, reach_two = 0, reach_three = 0;
#pragma unroll
    for (int i = 0; i < kKeys; ++i) {
      reach_one += values[i] >= one;
      reach_two += values[i] >= two;
      reach_three += values[i] >= three;
    }
    const uint2 sums = counter.sums(reach_one | reach_two << 16, reach_three);
    if (sums.y >= wanted) {
      threshold = {three, sums.y};
    } else if (sums.x >> 16 >= wanted) {
      threshold = {two, sums.x >> 16};
    } else if ((sums.x & 0xffffu) >= wanted) {
      threshold = {one, sums.x & 0xffffu};
    }
  }
  return threshold;
}

// Puts the `wanted` greatest of the thread block's keys to out[0, wanted), in any order. low(i) is
// the low part of key i. filled: shared, 0 when the first barrier has been passed.
template <int kThreads, int kKeys, typename Low>
__device__ __forceinline__ void select(const uint32_t (&high)[kKeys], Low low, uint32_t wanted,
                                       Counter<kThreads>& counter, int* filled, uint64_t* out) {
  const Threshold threshold = find_threshold<kThreads>(high, wanted, counter);
  uint32_t least_low = 0;  // of the keys that have the threshold itself
  if (threshold.found != wanted) {
    uint32_t above = 0;
    uint32_t equal_low[kKeys];
#pragma unroll
    for (int i = 0; i < kKeys; ++i) {
      above += high[i] > threshold.value;
      equal_low[i] = high[i] == threshold.value ? low(i) : 0;
    }
    above = counter.sums(0, above).y;
    least_low = find_threshold<kThreads>(equal_low, wanted - above, counter).value;
  }
  const unsigned lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < kKeys; ++i) {
    const bool chosen =
        high[i] > threshold.value || (high[i] == threshold.value && low(i) >= least_low);
    const unsigned all = __ballot_sync(kAllLanes, chosen);
    if (all == 0) continue;
    int first = 0;
    if (lane == 0) first = atomicAdd(filled, __popc(all));
    first = __shfl_sync(kAllLanes, first, 0);
    if (chosen) out[first + __popc(all & ((1u << lane) - 1))] = word_of({high[i], low(i)});
  }
}

// keys [rows, slices, k]: what a slice lacks to k is 0.
template <int kThreads, int kKeys>
__global__ void __launch_bounds__(kThreads)
    select_slices_kernel(View2D<const float> logits, int k, uint64_t* keys) {
  __shared__ uint2 partial[2][kThreads / 32];
  __shared__ int filled;
  let_next_start();
  wait_for_previous();
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kThreads * kKeys;
  const auto n = static_cast<int>(min(static_cast<int64_t>(kThreads) * kKeys, logits.cols - begin));
  const float* from = logits.data + blockIdx.y * logits.stride + begin;
  const auto place = [](int i) { return i * kThreads + static_cast<int>(threadIdx.x); };
  uint32_t high[kKeys];
#pragma unroll
  for (int i = 0; i < kKeys; ++i) high[i] = place(i) < n ? high_of(from[place(i)]) : 0;
  if (threadIdx.x == 0) filled = 0;
  uint64_t* out = keys + (static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x) * k;
  const int wanted = min(k, n);
  Counter<kThreads> counter{partial};
  select<kThreads>(
      high, [&](int i) { return low_of(begin + place(i)); }, static_cast<uint32_t>(wanted), counter,
      &filled, out);
  for (int i = wanted + static_cast<int>(threadIdx.x); i < k; i += kThreads) out[i] = 0;
}

// The candidate of a key of the row; the logit as it is in the row, NaN's bits and -0 included.
__device__ __forceinline__ Candidate candidate_of(uint32_t low, const float* logits,
                                                  int64_t first_token) {
  const auto column = static_cast<int64_t>(~low);
  return {static_cast<int32_t>(first_token + column), logits[column]};
}

template <int kKeys>
__global__ void __launch_bounds__(kSelectThreads)
    select_row_kernel(View2D<const float> logits, int64_t first_token, int k, int n_keys,
                      const uint64_t* keys, Candidate* out) {
  __shared__ uint2 partial[2][kSelectThreads / 32];
  __shared__ int filled;
  __shared__ uint64_t chosen[kMaxCandidates];
  let_next_start();
  wait_for_previous();
  const int64_t row = blockIdx.x;
  uint32_t high[kKeys], low[kKeys];
#pragma unroll
  for (int i = 0; i < kKeys; ++i) {
    const int at = i * kSelectThreads + static_cast<int>(threadIdx.x);
    const uint64_t word = at < n_keys ? keys[row * n_keys + at] : 0;
    high[i] = static_cast<uint32_t>(word >> 32);
    low[i] = static_cast<uint32_t>(word);
  }
  if (threadIdx.x == 0) filled = 0;
  Counter<kSelectThreads> counter{partial};
  select<kSelectThreads>(
      high, [&](int i) { return low[i]; }, static_cast<uint32_t>(k), counter, &filled, chosen);
  __syncthreads();
  // All keys differ, so a key's place is the number of greater ones.
  if (static_cast<int>(threadIdx.x) >= k) return;
  const uint64_t mine = chosen[threadIdx.x];
  int greater = 0;
  for (int i = 0; i < k; ++i) greater += chosen[i] > mine;
  out[row * k + greater] =
      candidate_of(static_cast<uint32_t>(mine), logits.data + row * logits.stride, first_token);
}

// The greatest key of the thread block, in thread 0.
template <int kThreads>
__device__ __forceinline__ Key greatest(Key key) {
  __shared__ Key partial[kThreads / 32];
  const auto of_warp = [](Key mine) {
    const uint32_t high = __reduce_max_sync(kAllLanes, mine.high);
    return Key{high, __reduce_max_sync(kAllLanes, mine.high == high ? mine.low : 0u)};
  };
  const unsigned lane = threadIdx.x % 32;
  key = of_warp(key);
  if (lane == 0) partial[threadIdx.x / 32] = key;
  __syncthreads();
  if (threadIdx.x >= 32) return key;
  return of_warp(lane < kThreads / 32 ? partial[lane] : Key{0, 0});
}
__device__ __forceinline__ Key greater(Key a, Key b) { return word_of(a) > word_of(b) ? a : b; }

// k = 1: the greatest of a slice, and then of all slices.
__global__ void __launch_bounds__(kSmallThreads)
    greatest_of_slices_kernel(View2D<const float> logits, uint64_t* keys) {
  let_next_start();
  wait_for_previous();
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kSmallSlice + threadIdx.x;
  const float* from = logits.data + blockIdx.y * logits.stride;
  Key best{0, 0};
#pragma unroll
  for (int i = 0; i < kSmallKeys; ++i) {
    const int64_t column = begin + i * kSmallThreads;
    if (column < logits.cols) best = greater(best, {high_of(from[column]), low_of(column)});
  }
  best = greatest<kSmallThreads>(best);
  if (threadIdx.x == 0) {
    keys[static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x] = word_of(best);
  }
}

__global__ void __launch_bounds__(kSmallThreads)
    greatest_of_row_kernel(View2D<const float> logits, int64_t first_token, int slices,
                           const uint64_t* keys, Candidate* out) {
  let_next_start();
  wait_for_previous();
  const int64_t row = blockIdx.x;
  Key best{0, 0};
  for (int i = static_cast<int>(threadIdx.x); i < slices; i += kSmallThreads) {
    const uint64_t word = keys[row * slices + i];
    best = greater(best, {static_cast<uint32_t>(word >> 32), static_cast<uint32_t>(word)});
  }
  best = greatest<kSmallThreads>(best);
  if (threadIdx.x == 0) {
    out[row] = candidate_of(best.low, logits.data + row * logits.stride, first_token);
  }
}

void launch_greatest(const Exec& exec, View2D<const float> logits, int64_t first_token,
                     uint64_t* keys, Candidate* out) {
  const auto slices = static_cast<unsigned>(div_up(logits.cols, kSmallSlice));
  const auto rows = static_cast<unsigned>(logits.rows);
  launch(exec, greatest_of_slices_kernel, dim3(slices, rows), dim3(kSmallThreads), 0, logits, keys);
  launch(exec, greatest_of_row_kernel, dim3(rows), dim3(kSmallThreads), 0, logits, first_token,
         static_cast<int>(slices), keys, out);
}

}  // namespace

void top_k(const Exec& exec, View2D<const float> logits, int64_t first_token, int64_t k,
           std::byte* workspace, Candidate* out) {
  CHECK(k >= 0 && k <= kMaxCandidates);
  CHECK_LE(k, logits.cols);
  CHECK_LE(logits.cols, kMostColumns);
  CHECK_LE(logits.rows, 65535);
  if (logits.rows == 0 || k == 0) return;
  CHECK_EQ(reinterpret_cast<uintptr_t>(workspace) % alignof(uint64_t), 0u);
  auto* keys = reinterpret_cast<uint64_t*>(workspace);
  if (k == 1) {
    launch_greatest(exec, logits, first_token, keys, out);
    return;
  }
  const int64_t slice = slice_columns(logits.cols, k);
  const int64_t slices = div_up(logits.cols, slice);
  const int64_t n_keys = slices * k;
  CHECK_LE(n_keys, kMostKeys);
  const auto rows = static_cast<unsigned>(logits.rows);
  const auto first = slice == kSmallSlice   ? select_slices_kernel<kSmallThreads, kSmallKeys>
                     : slice == kLargeSlice ? select_slices_kernel<kLargeThreads, kLargeKeys>
                                            : select_slices_kernel<kLargeThreads, kHugeKeys>;
  const int threads = slice == kSmallSlice ? kSmallThreads : kLargeThreads;
  launch(exec, first, dim3(static_cast<unsigned>(slices), rows),
         dim3(static_cast<unsigned>(threads)), 0, logits, static_cast<int>(k), keys);
  const auto second = n_keys <= 2 * kSelectThreads   ? select_row_kernel<2>
                      : n_keys <= 8 * kSelectThreads ? select_row_kernel<8>
                                                     : select_row_kernel<kSelectKeys>;
  launch(exec, second, dim3(rows), dim3(kSelectThreads), 0, logits, first_token,
         static_cast<int>(k), static_cast<int>(n_keys), keys, out);
}

int64_t top_k_workspace_bytes(int64_t max_rows, int64_t vocab_rows) {
  const int64_t keys = std::min(kMostKeys, div_up(vocab_rows, kSmallSlice) * kMaxCandidates);
  return max_rows * keys * static_cast<int64_t>(sizeof(uint64_t));
}

}  // namespace spillway::cuda

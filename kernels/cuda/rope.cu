// rope, rope_table and rope_kv_write. Bytes: 8 a value of q in place, 4 in and an element's out for
// K and V, and the table. Decode steps have the work done by attend_decode.
#include "kernels/core/int_math.h"
#include "kernels/cuda/kv_store.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/rope_turn.cuh"

namespace spillway::cuda {
namespace {

constexpr int kThreads = 128;

__global__ void __launch_bounds__(kThreads)
    rotate_rows(Rotation r, float* x, int64_t stride, int pairs_a_row) {
  let_next_start();
  wait_for_previous();
  const int i = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (i >= pairs_a_row) return;
  const int64_t row = blockIdx.y;
  float* head = x + row * stride + i / (r.head_dim / 2) * r.head_dim;
  const Pair pair = load_pair(r, row, head, i % (r.head_dim / 2));
  const float2 turned = turn(pair);
  head[pair.first] = turned.x;
  head[pair.second] = turned.y;
}

struct RopeKvParams {
  Rotation rotation;
  float* q;
  const float* k;
  const float* v;
  int64_t q_stride;
  int64_t k_stride;
  int64_t v_stride;
  const int64_t* slots;
  int q_pairs;
  KvPages cache;
};

// A block's thread has a pair of q, of k or of v.
__global__ void __launch_bounds__(kThreads) rotate_and_store(const RopeKvParams p) {
  let_next_start();
  wait_for_previous();
  const int half_dim = p.rotation.head_dim / 2;
  const int kv_pairs = p.cache.n_kv_heads * half_dim;
  int i = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  const int64_t row = blockIdx.y;
  if (i < p.q_pairs) {
    float* head = p.q + row * p.q_stride + i / half_dim * p.rotation.head_dim;
    const Pair pair = load_pair(p.rotation, row, head, i % half_dim);
    const float2 turned = turn(pair);
    head[pair.first] = turned.x;
    head[pair.second] = turned.y;
    return;
  }
  i -= p.q_pairs;
  if (i >= 2 * kv_pairs) return;
  const KvPlace place = kv_place(p.cache, p.slots[row]);
  if (i < kv_pairs) {
    const int head = i / half_dim;
    const float* from = p.k + row * p.k_stride + head * p.rotation.head_dim;
    const Pair pair = load_pair(p.rotation, row, from, i % half_dim);
    const float2 turned = turn(pair);
    store_value(p.cache, p.cache.k, place, head, pair.first, turned.x);
    store_value(p.cache, p.cache.k, place, head, pair.second, turned.y);
  } else {
    i -= kv_pairs;
    const int head = i / half_dim;
    const int dim = i % half_dim * 2;
    const float* from = p.v + row * p.v_stride + head * p.rotation.head_dim + dim;
    store_value(p.cache, p.cache.v, place, head, dim, from[0]);
    store_value(p.cache, p.cache.v, place, head, dim + 1, from[1]);
  }
}

// The same for caches of blocks: after q's pairs, rounded up to whole warps, a thread has a value
// of k or of v, and a warp a block.
__global__ void __launch_bounds__(kThreads) rotate_and_store_blocks(const RopeKvParams p) {
  let_next_start();
  wait_for_previous();
  const int head_dim = p.rotation.head_dim;
  const int q_threads = (p.q_pairs + 31) / 32 * 32;
  const int cols = p.cache.n_kv_heads * head_dim;
  int i = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  const int64_t row = blockIdx.y;
  if (i < q_threads) {
    if (i >= p.q_pairs) return;
    float* head = p.q + row * p.q_stride + i / (head_dim / 2) * head_dim;
    const Pair pair = load_pair(p.rotation, row, head, i % (head_dim / 2));
    const float2 turned = turn(pair);
    head[pair.first] = turned.x;
    head[pair.second] = turned.y;
    return;
  }
  i -= q_threads;
  if (i >= 2 * cols) return;  // cols is a multiple of 32
  const bool key = i < cols;
  const int col = key ? i : i - cols;
  const int head = col / head_dim;
  const int dim = col - head * head_dim;
  float value;
  if (key) {
    // Another thread computes the pair's other value.
    const float* from = p.k + row * p.k_stride + head * head_dim;
    const Pair pair = load_pair(p.rotation, row, from, pair_of(p.rotation, dim));
    const float2 turned = turn(pair);
    value = pair.first == dim ? turned.x : turned.y;
  } else {
    value = p.v[row * p.v_stride + col];
  }
  const KvPlace place = kv_place(p.cache, p.slots[row]);
  store_code(p.cache, key ? p.cache.k : p.cache.v, place, head, dim, value);
}

__global__ void __launch_bounds__(kThreads)
    make_table(const int32_t* positions, const double* angles, double magnitude, int pairs,
               int64_t n, float* cos_out, int64_t cos_stride, float* sin_out, int64_t sin_stride) {
  let_next_start();
  wait_for_previous();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n * pairs) return;
  const int64_t row = i / pairs;
  const auto pair = static_cast<int>(i % pairs);
  double sine;
  double cosine;
  sincos(static_cast<double>(positions[row]) * angles[pair], &sine, &cosine);
  cos_out[row * cos_stride + pair] = static_cast<float>(cosine * magnitude);
  sin_out[row * sin_stride + pair] = static_cast<float>(sine * magnitude);
}

}  // namespace

void rope_table(const Exec& exec, const int32_t* positions, const double* angles, double magnitude,
                View2D<float> cos, View2D<float> sin) {
  CHECK_EQ(cos.rows, sin.rows);
  CHECK_EQ(cos.cols, sin.cols);
  if (cos.rows == 0 || cos.cols == 0) return;
  const auto blocks = static_cast<unsigned>(div_up(cos.rows * cos.cols, kThreads));
  launch(exec, make_table, blocks, kThreads, 0, positions, angles, magnitude, cos.cols, cos.rows,
         cos.data, cos.stride, sin.data, sin.stride);
}

void rope(const Exec& exec, const RopeTable& table, RopePairing pairing, int64_t head_dim,
          View2D<float> x) {
  const Rotation rotation = rotation_of(table, pairing, head_dim, x.rows);
  const int64_t pairs = div_exact(x.cols, head_dim) * (head_dim / 2);
  if (x.rows == 0 || pairs == 0) return;
  const dim3 grid(static_cast<unsigned>(div_up(pairs, kThreads)), static_cast<unsigned>(x.rows));
  launch(exec, rotate_rows, grid, kThreads, 0, rotation, x.data, x.stride, pairs);
}

void rope_kv_write(const Exec& exec, const RopeTable& table, RopePairing pairing, View2D<float> q,
                   View2D<const float> k, View2D<const float> v, const int64_t* slots,
                   const KvView& cache) {
  CHECK_EQ(k.rows, q.rows);
  CHECK_EQ(v.rows, q.rows);
  CHECK_EQ(k.cols, cache.n_kv_heads * cache.head_dim);
  CHECK_EQ(v.cols, k.cols);
  const int64_t q_pairs = div_exact(q.cols, cache.head_dim) * (cache.head_dim / 2);
  RopeKvParams p;
  p.rotation = rotation_of(table, pairing, cache.head_dim, q.rows);
  if (q.rows == 0 || q_pairs + k.cols == 0) return;
  p.q = q.data;
  p.k = k.data;
  p.v = v.data;
  p.q_stride = q.stride;
  p.k_stride = k.stride;
  p.v_stride = v.stride;
  p.slots = slots;
  p.q_pairs = static_cast<int>(q_pairs);
  p.cache = kv_pages(cache);
  if (kv_quantized(cache.type)) {
    const int64_t threads = round_up(q_pairs, 32) + 2 * k.cols;
    const dim3 blocks(static_cast<unsigned>(div_up(threads, kThreads)),
                      static_cast<unsigned>(q.rows));
    launch(exec, rotate_and_store_blocks, blocks, kThreads, 0, p);
    return;
  }
  const dim3 grid(static_cast<unsigned>(div_up(q_pairs + k.cols, kThreads)),
                  static_cast<unsigned>(q.rows));
  launch(exec, rotate_and_store, grid, kThreads, 0, p);
}

}  // namespace spillway::cuda

// kv_write: rows of K and V to their places in the pages. Bytes: 8 a value of K and V read, an
// element's written.
#include "kernels/core/int_math.h"
#include "kernels/cuda/kv_store.cuh"
#include "kernels/cuda/launch.cuh"

namespace spillway::cuda {
namespace {

constexpr int kThreads = 128;

__global__ void __launch_bounds__(kThreads)
    store_rows(const float* k, int64_t k_stride, const float* v, int64_t v_stride,
               const int64_t* slots, const KvPages cache) {
  let_next_start();
  wait_for_previous();
  const int cols = cache.n_kv_heads * cache.head_dim;
  const int i = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (i >= 2 * cols) return;
  const int64_t row = blockIdx.y;
  const int col = i < cols ? i : i - cols;
  const int head = col / cache.head_dim;
  const float value = i < cols ? k[row * k_stride + col] : v[row * v_stride + col];
  std::byte* plane = i < cols ? cache.k : cache.v;
  const int dim = col - head * cache.head_dim;
  const KvPlace place = kv_place(cache, slots[row]);
  if (kv_quantized(cache.type)) {  // a warp has a block: heads are whole blocks
    store_code(cache, plane, place, head, dim, value);
  } else {
    store_value(cache, plane, place, head, dim, value);
  }
}

}  // namespace

void kv_write(const Exec& exec, View2D<const float> k, View2D<const float> v, const int64_t* slots,
              const KvView& cache) {
  CHECK_EQ(v.rows, k.rows);
  CHECK_EQ(k.cols, cache.n_kv_heads * cache.head_dim);
  CHECK_EQ(v.cols, k.cols);
  CHECK_LE(k.rows, 65535);
  if (k.rows == 0 || k.cols == 0) return;
  const dim3 grid(static_cast<unsigned>(div_up(2 * k.cols, kThreads)),
                  static_cast<unsigned>(k.rows));
  launch(exec, store_rows, grid, kThreads, 0, k.data, k.stride, v.data, v.stride, slots,
         kv_pages(cache));
}

}  // namespace spillway::cuda

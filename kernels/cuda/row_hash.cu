// hash_rows: reads 4 bytes a value, from L2 where it follows a sum, and adds to one word a warp. A
// debugging aid. Not timed on a device yet.
#include "kernels/core/row_hash.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/row_quads.cuh"

namespace spillway::cuda {
namespace {

// Not load_quad(): columns beyond the row are not hashed at all.
__global__ void __launch_bounds__(kQuadThreads)
    hash_kernel(View2D<const float> x, const int64_t* slots, unsigned long long* sum) {
  let_next_start();
  wait_for_previous();
  uint64_t mine = 0;
  const int64_t first = grid_quad() * kQuadColumns;
  for (int64_t row = blockIdx.y; row < x.rows; row += gridDim.y) {
    if (slots != nullptr && slots[row] < 0) continue;
    for (int64_t c = first; c < min(first + kQuadColumns, x.cols); ++c) {
      mine += value_hash(static_cast<uint64_t>(row * x.cols + c),
                         __float_as_uint(x.data[row * x.stride + c]));
    }
  }
  for (int lane = 16; lane > 0; lane /= 2) mine += __shfl_xor_sync(0xffffffffu, mine, lane);
  if (threadIdx.x % 32 == 0 && mine != 0) atomicAdd(sum, static_cast<unsigned long long>(mine));
}

}  // namespace

void hash_rows(const Exec& exec, View2D<const float> x, const int64_t* slots, uint64_t* sum) {
  if (x.rows == 0 || x.cols == 0) return;
  static_assert(sizeof(unsigned long long) == sizeof(uint64_t));
  launch(exec, hash_kernel, quad_grid(x.rows, x.cols), dim3(kQuadThreads), 0, x, slots,
         reinterpret_cast<unsigned long long*>(sum));
}

}  // namespace spillway::cuda

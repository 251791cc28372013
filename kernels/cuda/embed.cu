// embed: a thread has a quad of a token's columns and reads the words of the packed table that hold
// it. A token reads its row's codes out of lines that 16 rows share (64 bytes for 4 of ours), so 16
// times the row: 37 KB of Q4_K for 4096 columns. Not timed on a device yet.
#include "kernels/core/packed_quad.h"
#include "kernels/cuda/iq_grids.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/row_quads.cuh"

namespace spillway::cuda {
namespace {

template <QuantType Q>
__device__ __forceinline__ float4 table_quad(const PackedPlanes& from, int lane, int64_t quad,
                                             int64_t cols) {
  float v[4] = {0, 0, 0, 0};
  if constexpr (QuantTraits<Q>::kBits == 0) {
    for (int i = 0; i < 4; ++i) {
      const int64_t col = quad * kQuadColumns + i;
      if (col < cols) v[i] = plain_at<Q>(from, lane, col);
    }
  } else {
    packed_quad<Q>(from, lane, quad, device_grid<Q>(), v);
  }
  return {v[0], v[1], v[2], v[3]};
}

template <QuantType Q>
__global__ void __launch_bounds__(kQuadThreads)
    embed_kernel(PackedMatrix table, GroupLayout layout, const int32_t* tokens, int64_t first_row,
                 View2D<float> out, bool whole) {
  let_next_start();
  wait_for_previous();
  const int64_t quad = grid_quad();
  if (quad * kQuadColumns >= out.cols) return;
  for (int64_t i = blockIdx.y; i < out.rows; i += gridDim.y) {
    const int64_t row = tokens[i] - first_row;
    float4 v = {0, 0, 0, 0};
    if (row >= 0 && row < table.rows) {
      const std::byte* group = table.data + row / kRowGroup * layout.bytes;
      v = table_quad<Q>(packed_planes(group, layout), static_cast<int>(row % kRowGroup), quad,
                        out.cols);
    }
    store_quad(out.data + i * out.stride, quad, out.cols, whole, v);
  }
}

}  // namespace

void embed(const Exec& exec, const PackedMatrix& table, const int32_t* tokens, int64_t first_row,
           View2D<float> out) {
  CHECK_EQ(out.cols, table.cols);
  if (out.rows == 0 || out.cols == 0) return;
  const GroupLayout layout = group_layout(table.type, table.cols);
  dispatch(table.type, [&](auto tag) {
    launch(exec, embed_kernel<decltype(tag)::kType>, quad_grid(out.rows, out.cols),
           dim3(kQuadThreads), 0, table, layout, tokens, first_row, out, whole_quads(out));
  });
}

}  // namespace spillway::cuda

// gated_activation, where the product of gate and up did not do it itself. Bytes a value: 8 read,
// 4, 2 and 1.25 written in the forms asked for. Not timed on a device yet.
#include "kernels/cuda/activation.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/quantize.cuh"

namespace spillway::cuda {
namespace {

template <bool kGelu>
__global__ void __launch_bounds__(kQuadThreads)
    gated_kernel(View2D<const float> gate, View2D<const float> up, bool whole, InputWriter writer) {
  let_next_start();
  wait_for_previous();
  const int64_t quad = grid_quad();
  if (quad * kQuadColumns >= gate.cols) return;
  for (int64_t row = blockIdx.y; row < gate.rows; row += gridDim.y) {
    const float4 g = load_quad(gate.data + row * gate.stride, quad, gate.cols, whole);
    const float4 u = load_quad(up.data + row * up.stride, quad, up.cols, whole);
    writer.put(row, quad,
               {gated(g.x, u.x, kGelu), gated(g.y, u.y, kGelu), gated(g.z, u.z, kGelu),
                gated(g.w, u.w, kGelu)});
  }
}

}  // namespace

void gated_activation(const Exec& exec, View2D<const float> gate_up, bool gelu, unsigned forms,
                      const Input& out) {
  const int64_t ff = out.cols;
  CHECK_EQ(gate_up.rows, out.n);
  CHECK_EQ(gate_up.cols, 2 * ff);
  if (out.n == 0 || ff == 0 || forms == 0) return;
  const View2D<const float> gate = gate_up.columns(0, ff);
  const View2D<const float> up = gate_up.columns(ff, ff);
  launch(exec, gelu ? gated_kernel<true> : gated_kernel<false>, quad_grid(out.n, ff),
         dim3(kQuadThreads), 0, gate, up, whole_quads(gate) && whole_quads(up),
         input_writer(out, forms));
}

}  // namespace spillway::cuda

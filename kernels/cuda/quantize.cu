// quantize_rows: the forms of a matrix that no other op could write in passing (an attention's
// output that was gathered, a float input of tests). A value is read once (4 bytes) and written
// once in each form: 4, 2 and 1.25 bytes. Not timed on a device yet.
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/quantize.cuh"

namespace spillway::cuda {
namespace {

__global__ void __launch_bounds__(kQuadThreads)
    quantize_kernel(View2D<const float> x, bool whole, InputWriter writer) {
  let_next_start();
  wait_for_previous();
  const int64_t quad = grid_quad();
  if (quad * kQuadColumns >= x.cols) return;
  for (int64_t row = blockIdx.y; row < x.rows; row += gridDim.y) {
    writer.put(row, quad, load_quad(x.data + row * x.stride, quad, x.cols, whole));
  }
}

}  // namespace

void quantize_rows(const Exec& exec, View2D<const float> x, unsigned forms, const Input& out) {
  CHECK_EQ(out.n, x.rows);
  CHECK_EQ(out.cols, x.cols);
  if (forms & kFloatForm && out.x == x.data) {
    CHECK(x.rows <= 1 || x.stride == x.cols);  // it is there already
    forms &= ~unsigned{kFloatForm};
  }
  if (x.rows == 0 || x.cols == 0 || forms == 0) return;
  launch(exec, quantize_kernel, quad_grid(x.rows, x.cols), dim3(kQuadThreads), 0, x, whole_quads(x),
         input_writer(out, forms));
}

}  // namespace spillway::cuda

// attend for sequences with one row over caches of q8_0 and q4_0 blocks. The kernel:
// attend_decode.cuh; head_dim is a multiple of 32.
#include "kernels/cuda/attend_codes.cuh"
#include "kernels/cuda/attend_decode.cuh"

namespace spillway::cuda {
namespace {

template <typename Rows>
void launch_rows(const Exec& exec, const AttendParams& a, dim3 grid) {
  if (a.head_dim <= 64) return launch_decode_dim<Rows, 64, true>(exec, a, grid);
  if (a.head_dim == 96) return launch_decode_dim<Rows, 96, false>(exec, a, grid);
  if (a.head_dim == 128) return launch_decode_dim<Rows, 128, false>(exec, a, grid);
  return launch_decode_dim<Rows, 256, true>(exec, a, grid);
}

}  // namespace

void launch_decode_codes(const Exec& exec, const AttendParams& a, KvType type, dim3 grid) {
  if (type == KvType::kQ8_0) {
    launch_rows<ByteRows>(exec, a, grid);
  } else {
    launch_rows<NibbleRows>(exec, a, grid);
  }
}

}  // namespace spillway::cuda

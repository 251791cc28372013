// attend for sequences with one row over caches of halves and floats; blocks of codes are another
// unit, for the compiler's sake. The kernel: attend_decode.cuh.
#include "kernels/cuda/attend_decode.cuh"
#include "kernels/cuda/attend_rows.cuh"

namespace spillway::cuda {
namespace {

template <typename Rows>
void launch_rows(const Exec& exec, const AttendParams& a, dim3 grid) {
  switch (a.head_dim) {
    case 64:
      return launch_decode_dim<Rows, 64, false>(exec, a, grid);
    case 80:
      return launch_decode_dim<Rows, 80, false>(exec, a, grid);
    case 96:
      return launch_decode_dim<Rows, 96, false>(exec, a, grid);
    case 128:
      return launch_decode_dim<Rows, 128, false>(exec, a, grid);
    case 256:
      return launch_decode_dim<Rows, 256, false>(exec, a, grid);
    default:
      if (a.head_dim < 64) return launch_decode_dim<Rows, 64, true>(exec, a, grid);
      if (a.head_dim < 128) return launch_decode_dim<Rows, 128, true>(exec, a, grid);
      return launch_decode_dim<Rows, 256, true>(exec, a, grid);
  }
}

}  // namespace

void launch_decode(const Exec& exec, const AttendParams& a, KvType type) {
  const int kv_heads = (a.first_head + a.n_heads - 1) / a.group - a.first_head / a.group + 1;
  const dim3 grid(static_cast<unsigned>(a.slots + a.n_sequences - 1),
                  static_cast<unsigned>(kv_heads));
  if (kv_quantized(type)) {
    launch_decode_codes(exec, a, type, grid);
  } else if (type == KvType::kF16) {
    launch_rows<HalfRows>(exec, a, grid);
  } else {
    launch_rows<FloatRows>(exec, a, grid);
  }
}

}  // namespace spillway::cuda

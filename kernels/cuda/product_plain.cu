// Products with plain floats (F32, F16, BF16): 1 to 8 rows of float input in one pass over the
// weights, and their way to bf16 for the library. Layout: 16 rows' values of a column side by side
// (kernels/cpu/pack.h), so a lane reads four rows of one column with one load.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/core/check.h"
#include "kernels/core/int_math.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/piece.cuh"
#include "kernels/cuda/plain.h"

namespace spillway::cuda {
namespace {

constexpr int kWarps = 8;

struct PlainParams {
  ProductPart parts[3];
  int n_parts;
  int n_groups;
  int cols;
  int n;
  const float* x;
  float* out;
  int64_t out_stride;
  bool add;
};

template <QuantType Q>
__device__ __forceinline__ void four_rows(const std::byte* group, int column, int row4,
                                          float (&out)[4]) {
  if constexpr (Q == QuantType::kF32) {
    const uint4 v = load_stream(group + static_cast<int64_t>(column) * 64 + row4 * 16);
#pragma unroll
    for (int r = 0; r < 4; ++r) out[r] = __uint_as_float(word_of(v, r));
  } else {
    const uint2 v = load_pair(group + static_cast<int64_t>(column) * 32 + row4 * 8);
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      if constexpr (Q == QuantType::kF16) {
        out[r] = half_of(v, r);
      } else {
        const uint32_t word = r < 2 ? v.x : v.y;
        out[r] = __uint_as_float(r % 2 ? word & 0xffff0000u : word << 16);
      }
    }
  }
}

template <QuantType Q, int N>
__global__ void __launch_bounds__(32 * kWarps) plain_kernel(const __grid_constant__ PlainParams p) {
  __shared__ float partial[kWarps][16][N];
  let_next_start();
  wait_for_previous();
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int row4 = lane % 4;
  int part = 0;
  const int of = blockIdx.x;
  while (part + 1 < p.n_parts && of >= p.parts[part + 1].first_group) ++part;
  const ProductPart& at = p.parts[part];
  const int group = of - at.first_group;
  constexpr int kColumnBytes = 16 * (Q == QuantType::kF32 ? 4 : 2);
  const int64_t group_bytes = (static_cast<int64_t>(p.cols) * kColumnBytes + 63) / 64 * 64;
  const std::byte* data = at.data + group * group_bytes;
  float acc[4][N] = {};
#pragma unroll 4
  for (int k = warp * 8 + lane / 4; k < p.cols; k += kWarps * 8) {
    float w[4];
    four_rows<Q>(data, k, row4, w);
#pragma unroll
    for (int c = 0; c < N; ++c) {
      const float x = c < p.n ? p.x[static_cast<int64_t>(c) * p.cols + k] : 0.0f;
#pragma unroll
      for (int r = 0; r < 4; ++r) acc[r][c] = fmaf(w[r], x, acc[r][c]);
    }
  }
#pragma unroll
  for (int r = 0; r < 4; ++r) {
#pragma unroll
    for (int c = 0; c < N; ++c) {
      float sum = acc[r][c];
      sum += __shfl_xor_sync(~0u, sum, 4);
      sum += __shfl_xor_sync(~0u, sum, 8);
      sum += __shfl_xor_sync(~0u, sum, 16);
      if (lane < 4) partial[warp][4 * row4 + r][c] = sum;
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < 16 * N; i += blockDim.x) {
    const int c = i % N;
    const int row = group * 16 + i / N;
    if (c >= p.n || row >= at.rows) continue;
    float sum = 0;
    for (int k = 0; k < kWarps; ++k) sum += partial[k][i / N][c];
    float* out = p.out + c * p.out_stride + at.first_column + row;
    *out = p.add ? *out + sum : sum;
  }
}

// A block: 16 rows and 256 columns. out [rows, cols].
template <QuantType Q>
__global__ void __launch_bounds__(256) plain_bf16_kernel(const std::byte* data, int64_t group_bytes,
                                                         int rows, int cols, uint16_t* out) {
  let_next_start();
  wait_for_previous();
  const int column = blockIdx.x * 256 + threadIdx.x;
  if (column >= cols) return;
  const std::byte* group = data + blockIdx.y * group_bytes;
  for (int row4 = 0; row4 < 4; ++row4) {
    float v[4];
    four_rows<Q>(group, column, row4, v);
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const int row = blockIdx.y * 16 + 4 * row4 + r;
      if (row < rows) {
        out[static_cast<int64_t>(row) * cols + column] =
            __bfloat16_as_ushort(__float2bfloat16(v[r]));
      }
    }
  }
}

template <QuantType Q>
void launch_plain(const Exec& exec, const ProductArgs& args) {
  PlainParams p{};
  for (int i = 0; i < args.n_parts; ++i) p.parts[i] = args.parts[i];
  p.n_parts = args.n_parts;
  p.n_groups = args.n_groups;
  p.cols = args.cols;
  p.n = static_cast<int>(args.in.n);
  p.x = args.in.x;
  p.out = args.out;
  p.out_stride = args.out_stride;
  p.add = args.add;
  const dim3 grid(static_cast<unsigned>(args.n_groups));
  const dim3 block(32 * kWarps);
  CHECK_LE(p.n, kVectorRows);
  if (p.n == 1) return launch(exec, plain_kernel<Q, 1>, grid, block, 0, p);
  if (p.n <= 4) return launch(exec, plain_kernel<Q, 4>, grid, block, 0, p);
  launch(exec, plain_kernel<Q, 8>, grid, block, 0, p);
}

template <QuantType Q>
void launch_bf16(const Exec& exec, const PackedMatrix& w, uint16_t* out) {
  const dim3 grid(static_cast<unsigned>(div_up(w.cols, 256)),
                  static_cast<unsigned>(div_up(w.rows, kRowGroup)));
  launch(exec, plain_bf16_kernel<Q>, grid, dim3(256), 0, w.data, group_layout(w.type, w.cols).bytes,
         static_cast<int>(w.rows), static_cast<int>(w.cols), out);
}

}  // namespace

void plain_gemv(const Exec& exec, const ProductArgs& args) {
  switch (args.type) {
    case QuantType::kF32:
      return launch_plain<QuantType::kF32>(exec, args);
    case QuantType::kF16:
      return launch_plain<QuantType::kF16>(exec, args);
    default:
      CHECK(args.type == QuantType::kBF16);
      return launch_plain<QuantType::kBF16>(exec, args);
  }
}

void plain_bf16(const Exec& exec, const PackedMatrix& w, uint16_t* out) {
  switch (w.type) {
    case QuantType::kF32:
      return launch_bf16<QuantType::kF32>(exec, w, out);
    case QuantType::kF16:
      return launch_bf16<QuantType::kF16>(exec, w, out);
    default:
      CHECK(w.type == QuantType::kBF16);
      return launch_bf16<QuantType::kBF16>(exec, w, out);
  }
}

}  // namespace spillway::cuda

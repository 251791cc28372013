// Matrix-vector products: 1 to 8 rows of int8 input against packed weights, one pass over the
// weights. A block holds a few "jobs", each a group of 16 rows that kw warps share, every warp a
// part of the columns: lane / 4 picks a piece of 32 columns, lane % 4 four rows (piece.cuh). Sums
// across lanes and warps have one fixed order. The first weights are asked for before the kernel
// waits for its input.
//   Bytes: the weights once (past L1), the input once a block (from L2 and L1).
//   Measured: docs/bench/gpu.md.
#pragma once

#include "kernels/core/check.h"
#include "kernels/core/int_math.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/piece.cuh"
#include "kernels/cuda/product.h"

namespace spillway::cuda {

inline constexpr int kMaxWarps = 8;

struct GemvShape {
  int jobs;  // groups a block
  int kw;    // warps a group
};

struct GemvParams {
  ProductPart parts[3];
  int n_parts;
  Planes planes;
  uint32_t group_bytes;
  int n_groups;
  int n_pieces;
  int n;         // rows of input
  int n_padded;  // padded_rows(n)
  const int8_t* q8;
  const ActivationBlock* blocks;
  const uint32_t* grid;
  float* out;
  int64_t out_stride;
  bool add;
  int jobs;
  int kw;
  // Gated: gate and up are parts 0 and 1.
  bool gated;
  bool gelu;
  float* gated_x;
  int8_t* gated_q8;
  ActivationBlock* gated_blocks;
  int gated_cols;
};

// What a thread needs for one piece.
template <typename T>
struct Piece {
  Codes<T> codes;
  PieceScales<T> scales;
};
template <typename T>
__device__ __forceinline__ void load_piece(const std::byte* group, const Planes& planes, int piece,
                                           int row4, Piece<T>& out) {
  load_codes<T>(group, planes, piece, row4, out.codes);
  load_scales<T>(group, planes, piece, row4, out.scales);
}

template <QuantType Q>
__device__ __forceinline__ void row_quads(const Piece<QuantTraits<Q>>& piece, const uint32_t* grid,
                                          int r, uint32_t out[8]) {
  using T = QuantTraits<Q>;
  if constexpr (T::kGrid != 0) {
    const uint32_t signs = grid_signs<Q>(piece.codes, r);
    const int upper = byte_of(piece.scales.upper, r);
#pragma unroll
    for (int q = 0; q < 8; ++q) out[q] = grid_quad<Q>(grid, piece.codes, signs, upper, r, q);
  } else {
    quads<T>(piece.codes, r, out);
  }
}

// acc[r][c] += the piece's part of row r's product with column c of the input.
template <QuantType Q, int N>
__device__ __forceinline__ void add_piece(Piece<QuantTraits<Q>>& piece, const GemvParams& p,
                                          int index, float (&acc)[kRowsPerLane][N]) {
  using T = QuantTraits<Q>;
  using F = Form<T>;
  uint32_t w[kRowsPerLane][8];
  sign_scales<T>(piece.codes, piece.scales);
#pragma unroll
  for (int r = 0; r < kRowsPerLane; ++r) row_quads<Q>(piece, p.grid, r, w[r]);
  const int64_t first = static_cast<int64_t>(index) * p.n_padded;
#pragma unroll
  for (int c = 0; c < N; ++c) {
    // Quads in the order 0 4 1 5 2 6 3 7.
    const uint4* codes = reinterpret_cast<const uint4*>(p.q8 + (first + c) * kPiece);
    const uint4 a = codes[0];
    const uint4 b = codes[1];
    const ActivationBlock block = p.blocks[first + c];
    const int sums = block.sum[0] + block.sum[1];
#pragma unroll
    for (int r = 0; r < kRowsPerLane; ++r) {
      int dot0 = __dp4a(static_cast<int>(w[r][0]), static_cast<int>(a.x), 0);
      dot0 = __dp4a(static_cast<int>(w[r][1]), static_cast<int>(a.z), dot0);
      dot0 = __dp4a(static_cast<int>(w[r][2]), static_cast<int>(b.x), dot0);
      dot0 = __dp4a(static_cast<int>(w[r][3]), static_cast<int>(b.z), dot0);
      int dot1 = __dp4a(static_cast<int>(w[r][4]), static_cast<int>(a.y), F::kTwoSubs ? 0 : dot0);
      dot1 = __dp4a(static_cast<int>(w[r][5]), static_cast<int>(a.w), dot1);
      dot1 = __dp4a(static_cast<int>(w[r][6]), static_cast<int>(b.y), dot1);
      dot1 = __dp4a(static_cast<int>(w[r][7]), static_cast<int>(b.w), dot1);
      int dot;
      if constexpr (F::kTwoSubs) {
        dot = sub_factor<T>(piece.scales, 0, r) * (dot0 - F::kOffset * block.sum[0]) +
              sub_factor<T>(piece.scales, 1, r) * (dot1 - F::kOffset * block.sum[1]);
      } else {
        dot = dot1 - F::kOffset * sums;
        if constexpr (F::kScaled) dot *= sub_factor<T>(piece.scales, 0, r);
      }
      float value = row_factor<T>(piece.scales, r) * static_cast<float>(dot);
      if constexpr (T::kHasMin) {
        int sum = sums;
        if constexpr (F::kTwoSubs) {
          sum = byte_of(piece.scales.min[0], r) * block.sum[0] +
                byte_of(piece.scales.min[1], r) * block.sum[1];
        } else if constexpr (F::kScaled) {
          sum *= byte_of(piece.scales.min[0], r);
        }
        value += row_minimum<T>(piece.scales, r) * static_cast<float>(sum);
      }
      acc[r][c] += block.scale * value;
    }
  }
}

__device__ __forceinline__ float gate_activation(float g, bool gelu) {
  if (!gelu) return g / (1.0f + expf(-g));
  const float u = 0.7978845608f * (g + 0.044715f * g * g * g);
  return g / (1.0f + expf(-2.0f * u));
}

// 32 outputs of one input row, one a lane: as floats and as int8, as quantize_rows would.
__device__ __forceinline__ void write_gated(const GemvParams& p, int row, int block, int lane,
                                            float value) {
  if (p.gated_x != nullptr)
    p.gated_x[static_cast<int64_t>(row) * p.gated_cols + 32 * block + lane] = value;
  float most = fabsf(value);
  bool finite = isfinite(value);
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    most = fmaxf(most, __shfl_xor_sync(~0u, most, step));
  }
  finite = __all_sync(~0u, finite);
  const bool tiny = !(most >= 0x1p-100f);
  const float inverse = tiny || !finite ? 0.0f : __fdiv_rn(127.0f, most);
  const int code = finite ? __float2int_rn(__fmul_rn(value, inverse)) : 0;
  int sum = code;
#pragma unroll
  for (int step = 8; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  const int other = __shfl_xor_sync(~0u, sum, 16);
  const int64_t at = static_cast<int64_t>(block) * p.n_padded + row;
  const int quad = lane / 4;
  const int place = quad < 4 ? 2 * quad : 2 * (quad - 4) + 1;
  p.gated_q8[at * 32 + 4 * place + lane % 4] = static_cast<int8_t>(code);
  if (lane == 0) {
    const float scale = !finite ? __int_as_float(0x7fc00000)
                        : tiny  ? 0.0f
                                : __fdiv_rn(most, 127.0f);
    p.gated_blocks[at] = {scale, {static_cast<int16_t>(sum), static_cast<int16_t>(other)}};
  }
}

// The group of a job: its bytes, its first row within its part, and where its outputs go.
struct JobPlace {
  const std::byte* data;
  int first_row;
  int rows;
  int column;
};
__device__ __forceinline__ JobPlace place_of(const GemvParams& p, int job) {
  int group;
  int part = 0;
  if (p.gated) {
    part = job / 2;
    group = 2 * blockIdx.x + job % 2;
  } else {
    group = blockIdx.x * p.jobs + job;
    while (part + 1 < p.n_parts && group >= p.parts[part + 1].first_group) ++part;
    group -= p.parts[part].first_group;
  }
  const ProductPart& at = p.parts[part];
  return {at.data + static_cast<int64_t>(group) * p.group_bytes, group * 16, at.rows,
          at.first_column};
}

// Blocks an SM must hold at least. Four, with 64 registers, and the blocks of a feed-forward's gate
// fit one wave; types with more to unpack would spill.
template <QuantType Q, int N>
constexpr int gemv_blocks() {
  using T = QuantTraits<Q>;
  return N == 1 && T::kLowBits == 4 && T::kHighBits == 0 && !T::kTable ? 4 : 2;
}

template <QuantType Q, int N>
__global__ void __launch_bounds__(32 * kMaxWarps, gemv_blocks<Q, N>())
    gemv_kernel(const __grid_constant__ GemvParams p) {
  using T = QuantTraits<Q>;
  __shared__ float partial[kMaxWarps][16][N];
  let_next_start();
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int job = warp / p.kw;
  const int row4 = lane % 4;
  const int step = p.kw * 8;
  const bool mine = p.gated || blockIdx.x * p.jobs + job < p.n_groups;
  const JobPlace place = place_of(p, mine ? job : 0);
  int index = mine ? (warp % p.kw) * 8 + lane / 4 : p.n_pieces;
  Piece<T> piece;
  if (index < p.n_pieces) load_piece<T>(place.data, p.planes, index, row4, piece);
  wait_for_previous();

  float acc[kRowsPerLane][N] = {};
  while (index < p.n_pieces) {
    const int next_index = index + step;
    Piece<T> next;
    if (next_index < p.n_pieces) load_piece<T>(place.data, p.planes, next_index, row4, next);
    add_piece<Q, N>(piece, p, index, acc);
    piece = next;
    index = next_index;
  }

#pragma unroll
  for (int r = 0; r < kRowsPerLane; ++r) {
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
  // One thread an output: the warps' parts in their order.
  for (int i = threadIdx.x; i < p.jobs * 16 * N; i += blockDim.x) {
    const int c = i % N;
    const int row = i / N % 16;
    const int j = i / (16 * N);
    float sum = 0;
    for (int k = 0; k < p.kw; ++k) sum += partial[j * p.kw + k][row][c];
    if (p.gated) {
      partial[j * p.kw][row][c] = sum;  // its first place is read by this thread alone
      continue;
    }
    if (blockIdx.x * p.jobs + j >= p.n_groups || c >= p.n) continue;
    const JobPlace to = place_of(p, j);
    if (to.first_row + row >= to.rows) continue;
    float* out = p.out + c * p.out_stride + to.column + to.first_row + row;
    *out = p.add ? *out + sum : sum;
  }
  if (!p.gated) return;
  __syncthreads();
  for (int row = warp; row < p.n; row += blockDim.x / 32) {
    const float gate = partial[(lane / 16) * p.kw][lane % 16][row];
    const float up = partial[(2 + lane / 16) * p.kw][lane % 16][row];
    write_gated(p, row, blockIdx.x, lane, gate_activation(gate, p.gelu) * up);
  }
}

// What the parameters of every product of packed codes have in common.
template <typename Params>
void set_product(const ProductArgs& args, Params& p) {
  for (int i = 0; i < args.n_parts; ++i) p.parts[i] = args.parts[i];
  p.n_parts = args.n_parts;
  p.planes = planes_of(args.layout);
  p.group_bytes = static_cast<uint32_t>(args.layout.bytes);
  p.n_groups = args.n_groups;
  p.n_pieces = args.cols / kPiece;
  p.n = static_cast<int>(args.in.n);
  p.grid = args.grid;
  p.out = args.out;
  p.out_stride = args.out_stride;
  p.add = args.add;
}

// Warps a group so that every warp has at least two pieces a lane, and blocks of 8 warps.
inline GemvShape gemv_shape(int n_pieces, bool gated) {
  if (gated) return {4, 2};
  const int kw = n_pieces >= 96 ? 8 : n_pieces >= 48 ? 4 : 2;
  return {kMaxWarps / kw, kw};
}

template <QuantType Q>
void launch_gemv(const Exec& exec, const ProductArgs& args, const GatedOutput* gated) {
  GemvParams p{};
  set_product(args, p);
  p.n_padded = static_cast<int>(padded_rows(args.in.n));
  p.q8 = args.in.q8;
  p.blocks = args.in.blocks;
  const GemvShape shape = gemv_shape(p.n_pieces, gated != nullptr);
  p.jobs = shape.jobs;
  p.kw = shape.kw;
  dim3 grid(static_cast<unsigned>(div_up(args.n_groups, shape.jobs)));
  if (gated != nullptr) {
    p.gated = true;
    p.gelu = gated->gelu;
    p.gated_x = (gated->forms & kFloatForm) != 0 ? gated->to.x : nullptr;
    p.gated_q8 = gated->to.q8;
    p.gated_blocks = gated->to.blocks;
    p.gated_cols = static_cast<int>(gated->to.cols);
    grid.x = static_cast<unsigned>(args.parts[0].rows / 32);
  }
  const dim3 block(static_cast<unsigned>(32 * shape.jobs * shape.kw));
  switch (p.n_padded) {
    case 1:
      return launch(exec, gemv_kernel<Q, 1>, grid, block, 0, p);
    case 2:
      return launch(exec, gemv_kernel<Q, 2>, grid, block, 0, p);
    case 4:
      return launch(exec, gemv_kernel<Q, 4>, grid, block, 0, p);
    default:
      CHECK_EQ(p.n_padded, 8);
      return launch(exec, gemv_kernel<Q, 8>, grid, block, 0, p);
  }
}

}  // namespace spillway::cuda

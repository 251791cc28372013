// Packed weights to bf16, row-major, for products of many rows: a block takes a group of 16 rows
// and 64 pieces of its columns, a lane four rows of a piece (piece.cuh).
//   Bytes: the weights once, 2 bytes a value written, 64 bytes of a row at a time.
#pragma once

#include <cuda_bf16.h>

#include "kernels/core/int_math.h"
#include "kernels/cuda/gemv.cuh"

namespace spillway::cuda {

inline constexpr int kDequantPieces = 64;  // a block

__device__ __forceinline__ uint32_t bf16_pair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  uint32_t bits;
  __builtin_memcpy(&bits, &pair, sizeof(bits));
  return bits;
}

template <QuantType Q>
__global__ void __launch_bounds__(256)
    dequant_kernel(const std::byte* data, Planes planes, uint32_t group_bytes, int rows,
                   int n_pieces, const uint32_t* grid, uint16_t* out) {
  using T = QuantTraits<Q>;
  using F = Form<T>;
  let_next_start();
  wait_for_previous();  // out is read by the product before
  const int lane = threadIdx.x % 32;
  const int row4 = lane % 4;
  const int index = blockIdx.x * kDequantPieces + (threadIdx.x / 32) * 8 + lane / 4;
  if (index >= n_pieces) return;
  const std::byte* group = data + static_cast<int64_t>(blockIdx.y) * group_bytes;
  Piece<T> piece;
  load_piece<T>(group, planes, index, row4, piece);
  sign_scales<T>(piece.codes, piece.scales);
  const int64_t cols = static_cast<int64_t>(n_pieces) * kPiece;
#pragma unroll
  for (int r = 0; r < kRowsPerLane; ++r) {
    const int row = blockIdx.y * 16 + 4 * row4 + r;
    if (row >= rows) return;
    uint32_t w[8];
    row_quads<Q>(piece, grid, r, w);
    uint32_t pairs[16];
    const float factor = row_factor<T>(piece.scales, r);
    const float minimum = row_minimum<T>(piece.scales, r);
#pragma unroll
    for (int q = 0; q < 8; ++q) {
      constexpr int kHalf = 4;
      const int sub = F::kTwoSubs ? q / kHalf : 0;
      float scale = factor;
      if constexpr (F::kScaled) {
        scale *= static_cast<float>(sub_factor<T>(piece.scales, sub, r));
      }
      float add = minimum;
      if constexpr (T::kHasMin && F::kScaled) {
        add *= static_cast<float>(byte_of(piece.scales.min[sub], r));
      }
      float v[4];
#pragma unroll
      for (int b = 0; b < 4; ++b) {
        const int code = static_cast<int8_t>(byte_of(w[q], b)) - F::kOffset;
        v[b] = scale * static_cast<float>(code) + add;
      }
      pairs[2 * q] = bf16_pair(v[0], v[1]);
      pairs[2 * q + 1] = bf16_pair(v[2], v[3]);
    }
    uint4* to = reinterpret_cast<uint4*>(out + row * cols + index * kPiece);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      to[i] = make_uint4(pairs[4 * i], pairs[4 * i + 1], pairs[4 * i + 2], pairs[4 * i + 3]);
    }
  }
}

template <QuantType Q>
void launch_dequant(const Exec& exec, const PackedMatrix& w, const uint32_t* grid, uint16_t* out) {
  const GroupLayout layout = group_layout(w.type, w.cols);
  const int n_pieces = static_cast<int>(w.cols / kPiece);
  const dim3 blocks(static_cast<unsigned>(div_up(n_pieces, kDequantPieces)),
                    static_cast<unsigned>(div_up(w.rows, kRowGroup)));
  launch(exec, dequant_kernel<Q>, blocks, dim3(256), 0, w.data, planes_of(layout),
         static_cast<uint32_t>(layout.bytes), static_cast<int>(w.rows), n_pieces, grid, out);
}

}  // namespace spillway::cuda

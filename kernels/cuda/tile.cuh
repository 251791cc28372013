// Matrix products for tiles of 16 to 64 rows of int8 input on the int8 tensor cores (mma.sync, from
// sm_80 on). A warp holds 32 rows of weights, two groups; the packed layout gives a lane its mma
// fragments with one 16-byte load a plane: the four rows that lane (g, t) loads are rows g and g +
// 8 of two 16-row tiles, the quads t and t + 4 its columns. Each piece of 32 columns is one mma of
// m16n8k32 (two of k16 where sub-blocks have 16 columns), whose integers are scaled into floats.
// Blocks: wm warps by rows, wk by columns; the latter's sums meet in shared memory in their order.
//   Bytes: the weights once for every 64 rows of input, the input once a block.
#pragma once

#include "kernels/core/check.h"
#include "kernels/core/int_math.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/piece.cuh"
#include "kernels/cuda/product.h"

namespace spillway::cuda {

inline constexpr int kTileWm = 2;
inline constexpr int kTileWk = 4;
inline constexpr int kTileRows = 32 * kTileWm;  // of weights a block

struct TileParams {
  ProductPart parts[3];
  int n_parts;
  Planes planes;
  uint32_t group_bytes;
  int n_groups;
  int n_pieces;
  int n;
  int n_padded;
  const int8_t* q8;
  const ActivationBlock* blocks;
  const uint32_t* grid;
  float* out;
  int64_t out_stride;
  bool add;
};

__device__ __forceinline__ void mma_k32(int (&c)[4], const uint32_t (&a)[4], uint2 b) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b.x), "r"(b.y));
}
__device__ __forceinline__ void mma_k16(int (&c)[4], uint32_t a0, uint32_t a1, uint32_t b) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a0), "r"(a1), "r"(b));
}

// The vectors of a piece that lane t's quads are in: its own, or all where quads share vectors.
template <QuantType Q>
__device__ __forceinline__ void load_tile_codes(const std::byte* group, const Planes& planes,
                                                int piece, int row4, int t,
                                                Codes<QuantTraits<Q>>& out) {
  using T = QuantTraits<Q>;
  const std::byte* low = group + planes.codes + piece * (T::kLowBits * 64) + row4 * 16;
  if constexpr (T::kGrid == 0 && T::kLowBits == 8) {
    out.low.v[0] = load_stream(low + 64 * t);
    out.low.v[4] = load_stream(low + 64 * (t + 4));
  } else if constexpr (T::kGrid == 0 && T::kLowBits == 4) {
    out.low.v[0] = load_stream(low + 64 * t);
  } else {
#pragma unroll
    for (int j = 0; j < T::kLowBits; ++j) out.low.v[j] = load_stream(low + 64 * j);
  }
  if constexpr (T::kHighBits > 0) {
    const std::byte* high = group + planes.high + piece * (T::kHighBits * 64) + row4 * 16;
#pragma unroll
    for (int j = 0; j < T::kHighBits; ++j) out.high.v[j] = load_stream(high + 64 * j);
  }
}

// Quads t and t + 4 of row r, from what load_tile_codes loaded.
template <QuantType Q>
__device__ __forceinline__ void tile_quads(const Codes<QuantTraits<Q>>& codes,
                                           const PieceScales<QuantTraits<Q>>& scales,
                                           const uint32_t* grid, int r, int t, uint32_t& first,
                                           uint32_t& second) {
  using T = QuantTraits<Q>;
  if constexpr (T::kGrid != 0) {
    const uint32_t signs = grid_signs<Q>(codes, r);
    const int upper = byte_of(scales.upper, r);
    first = grid_quad<Q>(grid, codes, signs, upper, r, t);
    second = grid_quad<Q>(grid, codes, signs, upper, r, t + 4);
    return;
  } else if constexpr (T::kLowBits == 8) {
    first = word_of(codes.low.v[0], r) ^ 0x80808080u;
    second = word_of(codes.low.v[4], r) ^ 0x80808080u;
  } else if constexpr (T::kTable) {
    look_up(byte_table<T>(), word_of(codes.low.v[0], r), first, second);
  } else if constexpr (T::kLowBits == 4) {
    const uint32_t w = word_of(codes.low.v[0], r);
    first = w & 0x0f0f0f0fu;
    second = (w >> 4) & 0x0f0f0f0fu;
  } else {
    first = (word_of(codes.low.v[0], r) >> (2 * t)) & 0x03030303u;
    second = (word_of(codes.low.v[1], r) >> (2 * t)) & 0x03030303u;
  }
  expand_high<T>(codes, r, t, first, second);
}

// Scales an mma's integers of one row into its sums. c0, c1: the two columns' dots (of each half).
template <QuantType Q>
__device__ __forceinline__ float scaled(const PieceScales<QuantTraits<Q>>& s, int r, int dot_first,
                                        int dot_second, const ActivationBlock& block) {
  using T = QuantTraits<Q>;
  using F = Form<T>;
  const int sums = block.sum[0] + block.sum[1];
  int dot;
  if constexpr (F::kTwoSubs) {
    dot = sub_factor<T>(s, 0, r) * (dot_first - F::kOffset * block.sum[0]) +
          sub_factor<T>(s, 1, r) * (dot_second - F::kOffset * block.sum[1]);
  } else {
    dot = dot_first - F::kOffset * sums;
    if constexpr (F::kScaled) dot *= sub_factor<T>(s, 0, r);
  }
  float value = row_factor<T>(s, r) * static_cast<float>(dot);
  if constexpr (T::kHasMin) {
    int sum = sums;
    if constexpr (F::kTwoSubs) {
      sum = byte_of(s.min[0], r) * block.sum[0] + byte_of(s.min[1], r) * block.sum[1];
    } else if constexpr (F::kScaled) {
      sum *= byte_of(s.min[0], r);
    }
    value += row_minimum<T>(s, r) * static_cast<float>(sum);
  }
  return block.scale * value;
}

// One piece against NT * 8 rows of input from column_0 on: acc[tile][nt] as mma lays it out.
template <QuantType Q, int NT>
__device__ __forceinline__ void tile_piece(const Codes<QuantTraits<Q>>& codes,
                                           const PieceScales<QuantTraits<Q>>& scales,
                                           const TileParams& p, int piece, int column0,
                                           float (&acc)[2][NT][4]) {
  using F = Form<QuantTraits<Q>>;
  const int lane = threadIdx.x % 32;
  const int t = lane % 4;
  const int g = lane / 4;
  uint32_t a[2][4];  // rows g and g + 8 of tile i are the lane's rows 2i and 2i + 1
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    tile_quads<Q>(codes, scales, p.grid, 2 * i, t, a[i][0], a[i][2]);
    tile_quads<Q>(codes, scales, p.grid, 2 * i + 1, t, a[i][1], a[i][3]);
  }
  const int64_t first = static_cast<int64_t>(piece) * p.n_padded + column0;
#pragma unroll
  for (int nt = 0; nt < NT; ++nt) {
    if (column0 + 8 * nt >= p.n_padded) break;
    const uint2 b = *reinterpret_cast<const uint2*>(p.q8 + (first + 8 * nt + g) * kPiece + 8 * t);
    const uint4 two = *reinterpret_cast<const uint4*>(p.blocks + first + 8 * nt + 2 * t);
    ActivationBlock block[2];
    __builtin_memcpy(block, &two, sizeof(block));
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      int first_dots[4] = {};
      int second_dots[4] = {};
      if constexpr (F::kTwoSubs) {
        mma_k16(first_dots, a[i][0], a[i][1], b.x);
        mma_k16(second_dots, a[i][2], a[i][3], b.y);
      } else {
        mma_k32(first_dots, a[i], b);
      }
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        acc[i][nt][j] +=
            scaled<Q>(scales, 2 * i + j / 2, first_dots[j], second_dots[j], block[j % 2]);
      }
    }
  }
}

// The weights' group that lane g's four rows are in, nullptr beyond the last.
__device__ __forceinline__ const ProductPart& part_of(const TileParams& p, int group) {
  int part = 0;
  while (part + 1 < p.n_parts && group >= p.parts[part + 1].first_group) ++part;
  return p.parts[part];
}

template <QuantType Q, int NT>
__global__ void __launch_bounds__(32 * kTileWm * kTileWk)
    tile_kernel(const __grid_constant__ TileParams p) {
  using T = QuantTraits<Q>;
  constexpr int kColumns = 8 * NT;
  __shared__ float sums[kTileRows][kColumns + 1];
  let_next_start();
  const int warp = threadIdx.x / 32;
  const int wm = warp % kTileWm;
  const int wk = warp / kTileWm;
  const int lane = threadIdx.x % 32;
  const int t = lane % 4;
  const int g = lane / 4;
  const int row4 = g % 4;
  const int column0 = blockIdx.y * kColumns;
  const int group = (blockIdx.x * kTileWm + wm) * 2 + g / 4;
  // A lane without a group of its own reads the last one and throws its sums away.
  const int read_group = min(group, p.n_groups - 1);
  const ProductPart& part = part_of(p, read_group);
  const std::byte* data =
      part.data + static_cast<int64_t>(read_group - part.first_group) * p.group_bytes;

  float acc[2][NT][4] = {};
  Codes<T> codes;
  PieceScales<T> scales;
  int piece = wk;
  if (piece < p.n_pieces) {
    load_tile_codes<Q>(data, p.planes, piece, row4, t, codes);
    load_scales<T>(data, p.planes, piece, row4, scales);
  }
  wait_for_previous();
  while (piece < p.n_pieces) {
    const int next = piece + kTileWk;
    Codes<T> next_codes;
    PieceScales<T> next_scales;
    if (next < p.n_pieces) {
      load_tile_codes<Q>(data, p.planes, next, row4, t, next_codes);
      load_scales<T>(data, p.planes, next, row4, next_scales);
    }
    sign_scales<T>(codes, scales);
    tile_piece<Q, NT>(codes, scales, p, piece, column0, acc);
    codes = next_codes;
    scales = next_scales;
    piece = next;
  }

  // Warps of the same rows add up in the order of their columns.
  for (int k = 0; k < kTileWk; ++k) {
    if (k == wk) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int nt = 0; nt < NT; ++nt) {
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            // Row of the block: lane g's four rows are consecutive.
            float& to = sums[32 * wm + 4 * g + 2 * i + j / 2][8 * nt + 2 * t + j % 2];
            to = k == 0 ? acc[i][nt][j] : to + acc[i][nt][j];
          }
        }
      }
    }
    __syncthreads();
  }
  for (int i = threadIdx.x; i < kTileRows * kColumns; i += blockDim.x) {
    const int row = i % kTileRows;
    const int column = column0 + i / kTileRows;
    const int of_group = blockIdx.x * kTileWm * 2 + row / 16;
    if (column >= p.n || of_group >= p.n_groups) continue;
    const ProductPart& to = part_of(p, of_group);
    const int part_row = (of_group - to.first_group) * 16 + row % 16;
    if (part_row >= to.rows) continue;
    float* out = p.out + column * p.out_stride + to.first_column + part_row;
    const float sum = sums[row][i / kTileRows];
    *out = p.add ? *out + sum : sum;
  }
}

template <QuantType Q>
void launch_tiles(const Exec& exec, const ProductArgs& args) {
  TileParams p{};
  for (int i = 0; i < args.n_parts; ++i) p.parts[i] = args.parts[i];
  p.n_parts = args.n_parts;
  p.planes = planes_of(args.layout);
  p.group_bytes = static_cast<uint32_t>(args.layout.bytes);
  p.n_groups = args.n_groups;
  p.n_pieces = args.cols / kPiece;
  p.n = static_cast<int>(args.in.n);
  p.n_padded = static_cast<int>(padded_rows(args.in.n));
  CHECK_EQ(p.n_padded % 8, 0);
  p.q8 = args.in.q8;
  p.blocks = args.in.blocks;
  p.grid = args.grid;
  p.out = args.out;
  p.out_stride = args.out_stride;
  p.add = args.add;
  const auto blocks = static_cast<unsigned>(div_up(p.n_groups, 2 * kTileWm));
  const dim3 block(32 * kTileWm * kTileWk);
  if (p.n_padded <= 16) {
    launch(exec, tile_kernel<Q, 2>, dim3(blocks, 1), block, 0, p);
  } else if (p.n_padded <= 32) {
    launch(exec, tile_kernel<Q, 4>, dim3(blocks, 1), block, 0, p);
  } else {
    const auto columns = static_cast<unsigned>(div_up(p.n_padded, 64));
    launch(exec, tile_kernel<Q, 8>, dim3(blocks, columns), block, 0, p);
  }
}

}  // namespace spillway::cuda

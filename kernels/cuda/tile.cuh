// Matrix products for 9 to some hundred rows of int8 input on the int8 tensor cores (mma.sync, from
// sm_80 on). A warp holds 32 rows of weights, two groups; the packed layout gives a lane its mma
// fragments with one 16-byte load a plane: the four rows that lane (g, t) loads are rows g and g +
// 8 of two 16-row tiles, the quads t and t + 4 its columns. Each piece of 32 columns is one mma of
// m16n8k32 (two of k16 where sub-blocks have 16 columns), whose integers become floats by starting
// at the bits of 1.5 * 2^23 and losing that number again: no conversion instruction.
// Blocks: 32 rows of weights, 16 warps that share their columns and whose sums meet in shared
// memory in one order. The input goes through shared memory in chunks, the next one on its way;
// weights are asked for some pieces ahead, or an SM would not have enough of them in flight.
//   Bytes: the weights once for every 64 rows of input, the input once a block.
#pragma once

#include "kernels/core/check.h"
#include "kernels/core/int_math.h"
#include "kernels/cuda/gemv.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/piece.cuh"
#include "kernels/cuda/product.h"

namespace spillway::cuda {

inline constexpr int kTileWarps = 16;
inline constexpr int kTileRows = 32;  // of weights a block

// What depends on the width of a tile, NT * 8 rows of input.
template <int NT>
struct TileShape {
  static constexpr int kColumns = 8 * NT;
  static constexpr int kMine = NT == 8 ? 1 : 2;  // pieces of a chunk that are one warp's
  static constexpr int kChunk = kTileWarps * kMine;
  static constexpr int kStages = NT >= 4 ? 2 : 3;  // chunks in shared memory
  static constexpr int kAhead = NT == 8 ? 1 : 2;   // pieces of weights on their way to a warp
  static constexpr int kTurn = kAhead / kMine;     // chunks until the same registers are used again
};

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

// The bits of 1.5 * 2^23: added to an integer below 2^22 they make the float of that sum.
inline constexpr int kFloatBits = 0x4b400000;
__device__ __forceinline__ float float_of(int bits) { return __int_as_float(bits) - 12582912.0f; }

// Dots of 32 (16) columns, as float_of wants them.
__device__ __forceinline__ void mma_k32(int (&d)[4], const uint32_t (&a)[4], uint2 b) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%10,%10,%10,%10};"
      : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b.x), "r"(b.y), "r"(kFloatBits));
}
__device__ __forceinline__ void mma_k16(int (&d)[4], uint32_t a0, uint32_t a1, uint32_t b) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
      "{%7,%7,%7,%7};"
      : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
      : "r"(a0), "r"(a1), "r"(b), "r"(kFloatBits));
}

__device__ __forceinline__ void copy_async(void* to, const void* from) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(from));
}
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;"); }
template <int kLeft>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft));
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

// Quads t and t + 4 of row r, from what load_tile_codes loaded; centred: as signed bytes, the
// offset taken off.
template <QuantType Q, bool kCentred = true>
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
  if constexpr (kCentred &&
                Form<T>::kOffset != 0) {  // byte by byte: bit 7 keeps the borrow to itself
    constexpr uint32_t kOffsets = 0x01010101u * Form<T>::kOffset;
    first = ((first | 0x80808080u) - kOffsets) ^ 0x80808080u;
    second = ((second | 0x80808080u) - kOffsets) ^ 0x80808080u;
  }
}

// What a row's dots are multiplied with, by sub-block, and its minimums.
template <typename T>
struct RowScales {
  float scale[Form<T>::kSubs];
  float min[Form<T>::kSubs];
};
template <typename T>
__device__ __forceinline__ RowScales<T> row_scales(const PieceScales<T>& s, int r) {
  RowScales<T> out;
  const float factor = row_factor<T>(s, r);
  const float minimum = row_minimum<T>(s, r);
#pragma unroll
  for (int i = 0; i < Form<T>::kSubs; ++i) {
    out.scale[i] = factor;
    if constexpr (Form<T>::kScaled) out.scale[i] *= static_cast<float>(sub_factor<T>(s, i, r));
    out.min[i] = minimum;
    if constexpr (T::kHasMin && Form<T>::kScaled) {
      out.min[i] *= static_cast<float>(byte_of(s.min[i], r));
    }
  }
  return out;
}

// Of one row of input in one piece: its scale, and scale times the sums of codes.
template <typename T>
inline constexpr int kMetaFloats = T::kHasMin&& Form<T>::kTwoSubs ? 4 : 2;
template <typename T>
__device__ __forceinline__ void put_meta(const ActivationBlock& block, float* to) {
  if constexpr (kMetaFloats<T> == 4) {
    *reinterpret_cast<float4*>(to) =
        make_float4(block.scale, block.scale * static_cast<float>(block.sum[0]),
                    block.scale * static_cast<float>(block.sum[1]), 0.0f);
  } else {
    *reinterpret_cast<float2*>(to) =
        make_float2(block.scale, block.scale * static_cast<float>(block.sum[0] + block.sum[1]));
  }
}

// A chunk of the input in shared memory.
template <typename T, int NT>
struct TileStage {
  int8_t codes[TileShape<NT>::kChunk][8 * NT][kPiece];
  float meta[TileShape<NT>::kChunk][8 * NT][kMetaFloats<T>];
};

// One piece against NT * 8 rows of input: acc[tile][nt] as mma lays it out.
template <QuantType Q, int NT>
__device__ __forceinline__ void tile_piece(const Codes<QuantTraits<Q>>& codes,
                                           const PieceScales<QuantTraits<Q>>& scales,
                                           const uint32_t* grid,
                                           const TileStage<QuantTraits<Q>, NT>& stage, int k,
                                           float (&acc)[2][NT][4]) {
  using T = QuantTraits<Q>;
  using F = Form<T>;
  const int lane = threadIdx.x % 32;
  const int t = lane % 4;
  const int g = lane / 4;
  uint32_t a[2][4];  // rows g and g + 8 of tile i are the lane's rows 2i and 2i + 1
  RowScales<T> rows[4];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    tile_quads<Q>(codes, scales, grid, 2 * i, t, a[i][0], a[i][2]);
    tile_quads<Q>(codes, scales, grid, 2 * i + 1, t, a[i][1], a[i][3]);
  }
#pragma unroll
  for (int r = 0; r < 4; ++r) rows[r] = row_scales<T>(scales, r);
#pragma unroll
  for (int nt = 0; nt < NT; ++nt) {
    const uint2 b = *reinterpret_cast<const uint2*>(&stage.codes[k][8 * nt + g][8 * t]);
    float meta[2][kMetaFloats<T>];
    const float4* from = reinterpret_cast<const float4*>(&stage.meta[k][8 * nt + 2 * t][0]);
#pragma unroll
    for (int i = 0; i < kMetaFloats<T> / 2; ++i) {
      const float4 four = from[i];
      __builtin_memcpy(&meta[0][0] + 4 * i, &four, sizeof(four));
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      int first[4];
      int second[4];
      if constexpr (F::kTwoSubs) {
        mma_k16(first, a[i][0], a[i][1], b.x);
        mma_k16(second, a[i][2], a[i][3], b.y);
      } else {
        mma_k32(first, a[i], b);
      }
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const RowScales<T>& row = rows[2 * i + j / 2];
        const float(&of)[kMetaFloats<T>] = meta[j % 2];
        float& sum = acc[i][nt][j];
        if constexpr (F::kTwoSubs) {
          const float dots =
              fmaf(row.scale[1], float_of(second[j]), row.scale[0] * float_of(first[j]));
          sum = fmaf(of[0], dots, sum);
          if constexpr (T::kHasMin) sum = fmaf(row.min[0], of[1], fmaf(row.min[1], of[2], sum));
        } else {
          sum = fmaf(row.scale[0] * of[0], float_of(first[j]), sum);
          if constexpr (T::kHasMin) sum = fmaf(row.min[0], of[1], sum);
        }
      }
    }
  }
}

// Asks for chunk `chunk` of the input: codes by the copy engine of the SM, meta through registers,
// since it is computed. Pieces and rows beyond the input stay as they are: nobody reads their sums.
template <typename T, int NT>
__device__ __forceinline__ void stage_chunk(const TileParams& p, int chunk, int column0,
                                            TileStage<T, NT>& to) {
  constexpr int kRows = 8 * NT;
  constexpr int kChunk = TileShape<NT>::kChunk;
  const int first = chunk * kChunk;
  const int n_pieces = min(kChunk, p.n_pieces - first);
  const int n_rows = min(kRows, p.n_padded - column0);
  // Numbers that are known here make the divisions shifts.
#pragma unroll
  for (int base = 0; base < kChunk * kRows * 2; base += 32 * kTileWarps) {
    const int i = base + static_cast<int>(threadIdx.x);
    const int half = i % 2;
    const int row = i / 2 % kRows;
    const int k = i / 2 / kRows;
    if (k < n_pieces && row < n_rows) {
      const int64_t at = static_cast<int64_t>(first + k) * p.n_padded + column0 + row;
      copy_async(&to.codes[k][row][16 * half], p.q8 + at * kPiece + 16 * half);
    }
  }
#pragma unroll
  for (int base = 0; base < kChunk * kRows; base += 32 * kTileWarps) {
    const int i = base + static_cast<int>(threadIdx.x);
    const int row = i % kRows;
    const int k = i / kRows;
    if (k < n_pieces && row < n_rows) {
      put_meta<T>(p.blocks[static_cast<int64_t>(first + k) * p.n_padded + column0 + row],
                  to.meta[k][row]);
    }
  }
}

// The weights' group that lane g's four rows are in, nullptr beyond the last.
template <typename Params>
__device__ __forceinline__ const ProductPart& part_of(const Params& p, int group) {
  int part = 0;
  while (part + 1 < p.n_parts && group >= p.parts[part + 1].first_group) ++part;
  return p.parts[part];
}

// Adds the warps' sums up: the upper half of the warps to the lower one, then those in their order.
// One thread an output.
template <int NT, typename Params>
__device__ __forceinline__ void finish_tile(const Params& p, const float (&acc)[2][NT][4],
                                            int column0, unsigned char* shared) {
  constexpr int kColumns = 8 * NT;
  constexpr int kHalf = kTileWarps / 2;
  auto& sums = *reinterpret_cast<float(*)[kHalf][kColumns][kTileRows + 1]>(shared);
  const int warp = threadIdx.x / 32;
  const int t = threadIdx.x % 4;
  const int g = threadIdx.x % 32 / 4;
  for (int upper = 1; upper >= 0; --upper) {
    if (warp / kHalf == upper) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int nt = 0; nt < NT; ++nt) {
#pragma unroll
          for (int j = 0; j < 4; ++j) {  // lane g's four rows are consecutive
            float& to = sums[warp % kHalf][8 * nt + 2 * t + j % 2][4 * g + 2 * i + j / 2];
            to = upper == 1 ? acc[i][nt][j] : acc[i][nt][j] + to;
          }
        }
      }
    }
    __syncthreads();
  }
  for (int i = threadIdx.x; i < kTileRows * kColumns; i += blockDim.x) {
    const int row = i % kTileRows;
    const int column = column0 + i / kTileRows;
    const int of_group = blockIdx.x * 2 + row / 16;
    if (column >= p.n || of_group >= p.n_groups) continue;
    const ProductPart& to = part_of(p, of_group);
    const int part_row = (of_group - to.first_group) * 16 + row % 16;
    if (part_row >= to.rows) continue;
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kHalf; ++w) sum += sums[w][i / kTileRows][row];
    float* out = p.out + column * p.out_stride + to.first_column + part_row;
    *out = p.add ? *out + sum : sum;
  }
}

// What a block does, whatever the form of its input: put(chunk, column0, stage) asks for a chunk of
// it, multiply(codes, scales, stage, k, acc) multiplies piece k of a chunk.
template <QuantType Q, int NT, typename Stage, typename Params, typename Put, typename Multiply>
__device__ __forceinline__ void run_tile(const Params& p, unsigned char* shared, const Put& put,
                                         const Multiply& multiply) {
  using T = QuantTraits<Q>;
  using S = TileShape<NT>;
  auto* stages = reinterpret_cast<Stage*>(shared);
  let_next_start();
  const int warp = threadIdx.x / 32;
  const int t = threadIdx.x % 4;
  const int g = threadIdx.x % 32 / 4;
  const int column0 = blockIdx.y * S::kColumns;
  // A lane without a group of its own reads the last one and throws its sums away.
  const int group = min(static_cast<int>(blockIdx.x) * 2 + g / 4, p.n_groups - 1);
  const ProductPart& part = part_of(p, group);
  const std::byte* data =
      part.data + static_cast<int64_t>(group - part.first_group) * p.group_bytes;

  // A warp's i-th piece: kMine neighbours in every chunk.
  const auto piece_of = [&](int i) {
    return i / S::kMine * S::kChunk + warp * S::kMine + i % S::kMine;
  };
  float acc[2][NT][4] = {};
  Codes<T> codes[S::kAhead];
  PieceScales<T> scales[S::kAhead];
  const auto ask = [&](int i, Codes<T>& to_codes, PieceScales<T>& to_scales) {
    const int piece = piece_of(i);
    if (piece >= p.n_pieces) return;
    load_tile_codes<Q>(data, p.planes, piece, g % 4, t, to_codes);
    load_scales<T>(data, p.planes, piece, g % 4, to_scales);
  };
#pragma unroll
  for (int i = 0; i < S::kAhead; ++i) ask(i, codes[i], scales[i]);
  wait_for_previous();
  const int n_chunks = (p.n_pieces + S::kChunk - 1) / S::kChunk;
#pragma unroll
  for (int i = 0; i < S::kStages - 1; ++i) {
    if (i < n_chunks) put(i, column0, stages[i]);
    commit_copies();
  }
  for (int chunk0 = 0; chunk0 < n_chunks; chunk0 += S::kTurn) {
#pragma unroll
    for (int turn = 0; turn < S::kTurn; ++turn) {
      const int chunk = chunk0 + turn;
      if (chunk >= n_chunks) break;
      wait_copies<S::kStages - 2>();
      __syncthreads();  // the chunk is there, and all have done with the one before
      const int next = chunk + S::kStages - 1;
      if (next < n_chunks) put(next, column0, stages[next % S::kStages]);
      commit_copies();
#pragma unroll
      for (int i = 0; i < S::kMine; ++i) {
        const int mine = chunk * S::kMine + i;
        if (piece_of(mine) >= p.n_pieces) break;
        Codes<T>& c = codes[turn * S::kMine + i];
        PieceScales<T>& s = scales[turn * S::kMine + i];
        sign_scales<T>(c, s);
        multiply(c, s, stages[chunk % S::kStages], warp * S::kMine + i, acc);
        ask(mine + S::kAhead, c, s);
      }
    }
  }
  wait_copies<0>();
  __syncthreads();
  finish_tile<NT>(p, acc, column0, shared);
}

template <QuantType Q, int NT>
__global__ void __launch_bounds__(32 * kTileWarps, 1)
    tile_kernel(const __grid_constant__ TileParams p) {
  using T = QuantTraits<Q>;
  using Stage = TileStage<T, NT>;
  extern __shared__ __align__(16) unsigned char shared[];
  run_tile<Q, NT, Stage>(
      p, shared,
      [&](int chunk, int column0, Stage& to) { stage_chunk<T, NT>(p, chunk, column0, to); },
      [&](const Codes<T>& codes, const PieceScales<T>& scales, const Stage& stage, int k,
          float(&acc)[2][NT][4]) { tile_piece<Q, NT>(codes, scales, p.grid, stage, k, acc); });
}

template <QuantType Q, int NT>
void launch_tile(const Exec& exec, const TileParams& p) {
  using T = QuantTraits<Q>;
  constexpr size_t kInput = TileShape<NT>::kStages * sizeof(TileStage<T, NT>);
  constexpr size_t kSums = sizeof(float) * kTileWarps / 2 * 8 * NT * (kTileRows + 1);
  constexpr size_t kShared = kInput > kSums ? kInput : kSums;
  static_assert(kShared <= 99 * 1024);  // what a block may have on sm_86 and sm_89
  static const bool allowed = [] {
    CU(cudaFuncSetAttribute(tile_kernel<Q, NT>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                            static_cast<int>(kShared)));
    return true;
  }();
  (void)allowed;
  const dim3 grid(static_cast<unsigned>(div_up(p.n_groups, 2)),
                  static_cast<unsigned>(div_up(p.n_padded, 8 * NT)));
  launch(exec, tile_kernel<Q, NT>, grid, dim3(32 * kTileWarps), kShared, p);
}

template <QuantType Q>
void launch_tiles(const Exec& exec, const ProductArgs& args) {
  TileParams p{};
  set_product(args, p);
  p.n_padded = static_cast<int>(padded_rows(args.in.n));
  CHECK_EQ(p.n_padded % 8, 0);
  p.q8 = args.in.q8;
  p.blocks = args.in.blocks;
  if (p.n_padded <= 8) {
    launch_tile<Q, 1>(exec, p);
  } else if (p.n_padded <= 16) {
    launch_tile<Q, 2>(exec, p);
  } else if (p.n_padded <= 32) {
    launch_tile<Q, 4>(exec, p);
  } else {
    launch_tile<Q, 8>(exec, p);
  }
}

}  // namespace spillway::cuda

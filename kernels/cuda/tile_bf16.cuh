// Matrix products for 9 to some hundred rows of bf16 input on tensor cores that take bf16 at full
// rate (sm_80, sm_90): the plan of tile.cuh, but codes become bf16 in registers, scale and minimum
// included, so that a piece costs the same whatever the number of input rows. A lane's word of four
// codes gives two pairs: columns 4t, 4t + 1 take the places 2t, 2t + 1 of a k16 step, columns 4t +
// 2, 4t + 3 the places 2t + 8, 2t + 9; the input's fragment is then 8 bytes of a row as it lies.
//   Bytes: the weights once for every 64 rows of input, the input once a block.
#pragma once

#include <cuda_bf16.h>

#include "kernels/cuda/dequant.cuh"
#include "kernels/cuda/tile.cuh"

namespace spillway::cuda {

template <int NT>
struct Bf16Stage {
  // [piece][row][32]: the 16-byte units 0 to 3 of a row lie at unit ^ 2 in every other pair of
  // rows, so that the lanes of a fragment read different banks.
  uint16_t x[TileShape<NT>::kChunk][8 * NT][kPiece];
};

struct Bf16TileParams {
  ProductPart parts[3];
  int n_parts;
  Planes planes;
  uint32_t group_bytes;
  int n_groups;
  int n_pieces;
  int n;
  const uint16_t* x;  // [n, 32 * n_pieces]
  const uint32_t* grid;
  float* out;
  int64_t out_stride;
  bool add;
};

__device__ __forceinline__ void mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint2 b) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b.x), "r"(b.y));
}

__device__ __forceinline__ __nv_bfloat162 as_bf16(uint32_t bits) {
  __nv_bfloat162 v;
  __builtin_memcpy(&v, &bits, sizeof(v));
  return v;
}
__device__ __forceinline__ uint32_t as_bits(__nv_bfloat162 v) {
  uint32_t bits;
  __builtin_memcpy(&bits, &v, sizeof(bits));
  return bits;
}

// Four codes of a row, a word, as two pairs of values.
template <typename T>
__device__ __forceinline__ void values_of(uint32_t codes, float scale, float minimum,
                                          uint32_t& first, uint32_t& second) {
  if constexpr (!T::kTable && T::kGrid == 0 && T::kBits < 8) {
    // 0x4300 + code are the bits of 128 + code. Less 128 and the offset it is exact.
    const __nv_bfloat162 base = __float2bfloat162_rn(128.0f + T::kOffset);
    const __nv_bfloat162 s = __float2bfloat162_rn(scale);
    const __nv_bfloat162 low = __hsub2(as_bf16(__byte_perm(codes, 0x43434343u, 0x4140)), base);
    const __nv_bfloat162 high = __hsub2(as_bf16(__byte_perm(codes, 0x43434343u, 0x4342)), base);
    if constexpr (T::kHasMin) {
      const __nv_bfloat162 m = __float2bfloat162_rn(minimum);
      first = as_bits(__hfma2(low, s, m));
      second = as_bits(__hfma2(high, s, m));
    } else {
      first = as_bits(__hmul2(low, s));
      second = as_bits(__hmul2(high, s));
    }
  } else {
    float v[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      v[i] = scale * static_cast<float>(static_cast<int8_t>(byte_of(codes, i))) + minimum;
    }
    first = bf16_pair(v[0], v[1]);
    second = bf16_pair(v[2], v[3]);
  }
}

// One piece against NT * 8 rows of input.
template <QuantType Q, int NT>
__device__ __forceinline__ void bf16_piece(const Codes<QuantTraits<Q>>& codes,
                                           const PieceScales<QuantTraits<Q>>& scales,
                                           const uint32_t* grid, const Bf16Stage<NT>& stage, int k,
                                           float (&acc)[2][NT][4]) {
  using T = QuantTraits<Q>;
  constexpr int kLast = Form<T>::kSubs - 1;
  const int t = threadIdx.x % 4;
  const int g = threadIdx.x % 32 / 4;
  uint32_t a[2][2][4];  // [tile][k step]: rows g and g + 8 of tile i are the lane's 2i and 2i + 1
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    uint32_t near;
    uint32_t far;
    tile_quads<Q, false>(codes, scales, grid, r, t, near, far);
    const RowScales<T> row = row_scales<T>(scales, r);
    values_of<T>(near, row.scale[0], row.min[0], a[r / 2][0][r % 2], a[r / 2][0][r % 2 + 2]);
    values_of<T>(far, row.scale[kLast], row.min[kLast], a[r / 2][1][r % 2], a[r / 2][1][r % 2 + 2]);
  }
  const int flip = (g / 2 % 2) * 16;  // in values: two units
#pragma unroll
  for (int nt = 0; nt < NT; ++nt) {
    const uint16_t* row = stage.x[k][8 * nt + g];
#pragma unroll
    for (int step = 0; step < 2; ++step) {
      const uint2 b = *reinterpret_cast<const uint2*>(row + ((16 * step + 4 * t) ^ flip));
      mma_bf16(acc[0][nt], a[0][step], b);
      mma_bf16(acc[1][nt], a[1][step], b);
    }
  }
}

template <int NT>
__device__ __forceinline__ void stage_bf16(const Bf16TileParams& p, int chunk, int column0,
                                           Bf16Stage<NT>& to) {
  constexpr int kRows = 8 * NT;
  constexpr int kChunk = TileShape<NT>::kChunk;
  const int first = chunk * kChunk;
  const int n_pieces = min(kChunk, p.n_pieces - first);
  const int n_rows = min(kRows, p.n - column0);
  const int64_t stride = static_cast<int64_t>(p.n_pieces) * kPiece;
#pragma unroll
  for (int base = 0; base < kChunk * kRows * 4; base += 32 * kTileWarps) {
    const int i = base + static_cast<int>(threadIdx.x);
    const int unit = i % 4;
    const int k = i / 4 % kChunk;  // neighbours in memory side by side
    const int row = i / 4 / kChunk;
    if (k < n_pieces && row < n_rows) {
      copy_async(&to.x[k][row][8 * (unit ^ (row / 2 % 2 * 2))],
                 p.x + (column0 + row) * stride + (first + k) * kPiece + 8 * unit);
    }
  }
}

template <QuantType Q, int NT>
__global__ void __launch_bounds__(32 * kTileWarps, 1)
    bf16_tile_kernel(const __grid_constant__ Bf16TileParams p) {
  using T = QuantTraits<Q>;
  using Stage = Bf16Stage<NT>;
  extern __shared__ __align__(16) unsigned char shared[];
  run_tile<Q, NT, Stage>(
      p, shared, [&](int chunk, int column0, Stage& to) { stage_bf16<NT>(p, chunk, column0, to); },
      [&](const Codes<T>& codes, const PieceScales<T>& scales, const Stage& stage, int k,
          float(&acc)[2][NT][4]) { bf16_piece<Q, NT>(codes, scales, p.grid, stage, k, acc); });
}

template <QuantType Q, int NT>
void launch_bf16_tile(const Exec& exec, const Bf16TileParams& p) {
  constexpr size_t kInput = TileShape<NT>::kStages * sizeof(Bf16Stage<NT>);
  constexpr size_t kSums = sizeof(float) * kTileWarps / 2 * 8 * NT * (kTileRows + 1);
  constexpr size_t kShared = kInput > kSums ? kInput : kSums;
  static_assert(kShared <= 163 * 1024);  // of a block on sm_80
  static const bool allowed = [] {
    CU(cudaFuncSetAttribute(bf16_tile_kernel<Q, NT>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                            static_cast<int>(kShared)));
    return true;
  }();
  (void)allowed;
  const dim3 grid(static_cast<unsigned>(div_up(p.n_groups, 2)),
                  static_cast<unsigned>(div_up(p.n, 8 * NT)));
  launch(exec, bf16_tile_kernel<Q, NT>, grid, dim3(32 * kTileWarps), kShared, p);
}

template <QuantType Q>
void launch_bf16_tiles(const Exec& exec, const ProductArgs& args) {
  Bf16TileParams p{};
  set_product(args, p);
  p.x = args.in.bf16;
  if (p.n <= 16) return launch_bf16_tile<Q, 2>(exec, p);
  if (p.n <= 32) return launch_bf16_tile<Q, 4>(exec, p);
  launch_bf16_tile<Q, 8>(exec, p);
}

}  // namespace spillway::cuda

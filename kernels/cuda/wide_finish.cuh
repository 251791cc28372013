// The end of a tile of tile_wide.cuh: the two warpgroups' sums meet, then results go out. A lane
// has four neighbouring rows of weights of its strip, so that an output of a row of input is 16
// bytes, and eight lanes write a line.
#pragma once

#include "kernels/cuda/dequant.cuh"
#include "kernels/cuda/tile.cuh"
#include "kernels/cuda/wide.h"

namespace spillway::cuda {

inline constexpr int kWideWarps = 8;  // that multiply, 32 rows of weights each
inline constexpr int kWideStrips = kWideWarps / 2;
inline constexpr int kWideMultipliers = 32 * kWideWarps;  // threads

struct WideParams {
  ProductPart parts[3];
  int n_parts;
  Planes planes;
  uint32_t group_bytes;
  int n_groups;
  int n_pieces;
  int n;
  int n_column_tiles;
  int n_units;
  const uint32_t* grid;
  float* out;
  int64_t out_stride;
  bool add;
  bool whole;  // four rows of weights are always 16 aligned bytes of out
  // Gated: a strip is a group of gate, part 0, and the same of up, part 1.
  bool gelu;
  uint16_t* gated_to;  // bf16 [n, rows of gate]
};

// The weights of a lane: the upper or the lower half of a strip.
template <bool kGated>
__device__ __forceinline__ const std::byte* wide_group(const WideParams& p, int strip, int half) {
  // A warp without a strip of its own reads the last group and throws its sums away.
  const int group =
      min(kGated ? strip : 2 * strip + half, kGated ? p.parts[1].first_group - 1 : p.n_groups - 1);
  const ProductPart& part = kGated ? p.parts[half] : part_of(p, group);
  const int first = kGated ? 0 : part.first_group;
  return part.data + static_cast<int64_t>(group - first) * p.group_bytes;
}

__device__ __forceinline__ void multipliers_barrier() {
  asm volatile("bar.sync 1, %0;" ::"n"(kWideMultipliers) : "memory");
}

// A lane's four rows of sums, of column 8j + 2t + e: acc[tile][4j + 2i + e] is row 2 * tile + i.
__device__ __forceinline__ float4 four_of(const float (&acc)[2][64], int j, int e) {
  const int at = 4 * j + e;
  return {acc[0][at], acc[0][at + 2], acc[1][at], acc[1][at + 2]};
}
// The warpgroups have sums of the same outputs: each gives the other its part of half of the
// columns. sums: in shared memory, 64 KB that nobody reads or writes once all have come here.
__device__ __forceinline__ void swap_halves(float (&acc)[2][64], float4* sums) {
  const int group = threadIdx.x / 128;
  sums += threadIdx.x % 128;
  multipliers_barrier();
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    if (i / 16 != group) sums[i * 128] = four_of(acc, i / 2, i % 2);
  }
  multipliers_barrier();
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    if (i / 16 != group) continue;
    const float4 other = sums[i * 128];
    const int at = i / 2 * 4 + i % 2;
    acc[0][at] += other.x;
    acc[0][at + 2] += other.y;
    acc[1][at] += other.z;
    acc[1][at + 2] += other.w;
  }
}

// Where a lane's results go.
struct WideOutput {
  float* out;  // of its first row; nullptr: nowhere
  int rows;    // of its four that are rows of the matrix
};
template <bool kGated>
__device__ __forceinline__ WideOutput wide_output(const WideParams& p, int strip, int g) {
  if constexpr (kGated) return {nullptr, 0};
  const int group = 2 * strip + g / 4;
  if (group >= p.n_groups) return {nullptr, 0};
  const ProductPart& part = part_of(p, group);
  const int row = (group - part.first_group) * 16 + g % 4 * 4;
  return {p.out + part.first_column + row, min(part.rows - row, 4)};
}

__device__ __forceinline__ void put_four(const WideParams& p, const WideOutput& to, int column,
                                         float4 v) {
  float* out = to.out + column * p.out_stride;
  if (p.whole && to.rows == 4) {
    auto* four = reinterpret_cast<float4*>(out);
    if (p.add) {
      const float4 was = *four;
      v = {was.x + v.x, was.y + v.y, was.z + v.z, was.w + v.w};
    }
    *four = v;
    return;
  }
  const float values[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (i < to.rows) out[i] = p.add ? out[i] + values[i] : values[i];
  }
}

// act(gate) * up (activation.cuh) to some 2^-18 of it, which bf16 hides: exact divisions and
// exponentials of all outputs at a block's end took a sixth of the products' time.
__device__ __forceinline__ float about_gated(float gate, float up, bool use_gelu) {
  constexpr float kLog2e = 1.44269504f;
  const float factor =
      use_gelu ? fmaf(gate * gate, -0.0713548163f * kLog2e, -1.59576912f * kLog2e) : -kLog2e;
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(gate * factor));
  float inverse;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(1.0f + power));
  return gate * inverse * up;
}

// Gate is in the lower lanes of a warp, up in the upper ones: those write the columns of e = 1.
__device__ __forceinline__ void put_gated(const WideParams& p, int strip, int g, int column,
                                          const float4 (&v)[2]) {
  const bool up = g >= 4;
  const auto swap = [&](float even, float odd, float& gate_value, float& up_value) {
    const float got = __shfl_xor_sync(0xffffffffu, up ? even : odd, 16);
    gate_value = up ? got : even;
    up_value = up ? odd : got;
  };
  float gate_values[4];
  float up_values[4];
  swap(v[0].x, v[1].x, gate_values[0], up_values[0]);
  swap(v[0].y, v[1].y, gate_values[1], up_values[1]);
  swap(v[0].z, v[1].z, gate_values[2], up_values[2]);
  swap(v[0].w, v[1].w, gate_values[3], up_values[3]);
  column += up ? 1 : 0;
  if (column >= p.n || strip >= p.parts[1].first_group) return;
  const auto value = [&](int i) { return about_gated(gate_values[i], up_values[i], p.gelu); };
  uint16_t* to =
      p.gated_to + static_cast<int64_t>(column) * p.parts[0].rows + strip * 16 + g % 4 * 4;
  *reinterpret_cast<uint2*>(to) = {bf16_pair(value(0), value(1)), bf16_pair(value(2), value(3))};
}

// n8 step j of a tile: v[e] is column 8j + 2t + e, unscaled.
template <bool kGated>
__device__ __forceinline__ void put_step(const WideParams& p, const WideOutput& to, float factor,
                                         int strip, int column, float4 (&v)[2]) {
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    v[e] = {v[e].x * factor, v[e].y * factor, v[e].z * factor, v[e].w * factor};
  }
  if constexpr (kGated) {
    put_gated(p, strip, threadIdx.x % 32 / 4, column, v);
  } else if (to.out != nullptr) {
    if (column < p.n) put_four(p, to, column, v[0]);
    if (column + 1 < p.n) put_four(p, to, column + 1, v[1]);
  }
}

// A warpgroup puts its half of the columns.
template <bool kGated>
__device__ __forceinline__ void finish_wide(const WideParams& p, const float (&acc)[2][64],
                                            float factor, int strip, int column0) {
  const WideOutput to = wide_output<kGated>(p, strip, threadIdx.x % 32 / 4);
#pragma unroll
  for (int j = 0; j < 16; ++j) {
    if (j / 8 != threadIdx.x / 128) continue;
    float4 v[2] = {four_of(acc, j, 0), four_of(acc, j, 1)};
    put_step<kGated>(p, to, factor, strip, column0 + 8 * j + 2 * (threadIdx.x % 4), v);
  }
}

}  // namespace spillway::cuda

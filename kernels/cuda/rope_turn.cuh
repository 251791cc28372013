// The rotation of one pair of a head's dimensions, for rope.cu and attend_decode.cuh. Products and
// sums are rounded one by one, as the CPU's are, so that a rotated value has the CPU's bits.
#pragma once

#include "kernels/core/check.h"
#include "kernels/cuda/ops.h"

namespace spillway::cuda {

struct Rotation {
  const float* cos;
  const float* sin;
  int64_t cos_stride;
  int64_t sin_stride;
  int pairs;
  int head_dim;
  bool halves;
};

inline Rotation rotation_of(const RopeTable& table, RopePairing pairing, int64_t head_dim,
                            int64_t rows) {
  CHECK(head_dim > 0 && head_dim % 2 == 0);
  CHECK_LE(2 * table.cos.cols, head_dim);
  CHECK_EQ(table.sin.cols, table.cos.cols);
  CHECK_EQ(table.cos.rows, rows);
  CHECK_EQ(table.sin.rows, rows);
  CHECK_LE(rows, 65535);
  return {table.cos.data,
          table.sin.data,
          table.cos.stride,
          table.sin.stride,
          static_cast<int>(table.cos.cols),
          static_cast<int>(head_dim),
          pairing == RopePairing::kHalves};
}

// What one thread turns: dimensions first and second of a head, as they are in memory. Pairs beyond
// n_rot stay as they are.
struct Pair {
  int first;
  int second;
  float x;
  float y;
  float cos;
  float sin;
  bool turns;
};

// Apart from turn(), so that a thread with several pairs asks for all of them at once.
__device__ __forceinline__ Pair load_pair(const Rotation& r, int64_t row, const float* head,
                                          int pair) {
  Pair p;
  p.turns = pair < r.pairs;
  const bool apart = p.turns && r.halves;
  p.first = apart ? pair : 2 * pair;
  p.second = apart ? pair + r.pairs : 2 * pair + 1;
  p.x = __ldcg(head + p.first);
  p.y = __ldcg(head + p.second);
  p.cos = 1;
  p.sin = 0;
  if (p.turns) {
    p.cos = __ldcg(r.cos + row * r.cos_stride + pair);
    p.sin = __ldcg(r.sin + row * r.sin_stride + pair);
  }
  return p;
}

__device__ __forceinline__ float2 turn(const Pair& p) {
  if (!p.turns) return {p.x, p.y};
  return {__fsub_rn(__fmul_rn(p.x, p.cos), __fmul_rn(p.y, p.sin)),
          __fadd_rn(__fmul_rn(p.x, p.sin), __fmul_rn(p.y, p.cos))};
}

// The pair that a dimension belongs to.
__device__ __forceinline__ int pair_of(const Rotation& r, int dim) {
  if (!r.halves || dim >= 2 * r.pairs) return dim / 2;
  return dim < r.pairs ? dim : dim - r.pairs;
}

}  // namespace spillway::cuda

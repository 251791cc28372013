// Matrix products for many rows of bf16 input on sm_90a, weights from packed codes to bf16 in
// registers: what the library's product of a dequantised matrix does, without that matrix. A block
// holds 128 rows of weights against 128 of input. Of its three warpgroups two multiply, each with
// all the rows and every other unit of the columns; a warp has a strip of 32 rows and makes bf16 of
// a piece of 32 columns (wide_weights.cuh) while the tensor cores work on the piece before. The
// third has the copy engine fill a ring of the input. The two sums of an output meet at the end
// (wide_finish.cuh), so that a row's bits do not depend on the rows beside it.
//   Bytes: weights and input once a block, both out of L2 where blocks run side by side.
//   Best: 693 TFLOP/s of 798, 87 % (NVIDIA H100 80GB HBM3, 2026-11-26: a 70B's down in Q4_K, 256
//   rows; 8B gate and up, 512 rows: 627). docs/bench/gpu.md has more, and what was tried.
#pragma once

#include <cuda.h>

#include <algorithm>

#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/wide_finish.cuh"
#include "kernels/cuda/wide_launch.h"
#include "kernels/cuda/wide_map.cuh"
#include "kernels/cuda/wide_weights.cuh"

namespace spillway::cuda {

inline constexpr int kWideStages = 8;      // of the ring, 64 columns each
inline constexpr int kWideUnitStages = 2;  // a unit of weights, 128 columns
inline constexpr int kWideStageBytes = kWideColumns * 128;
inline constexpr int kWideThreads = 384;

// Shared memory: the ring, scales, barriers.
template <QuantType Q>
struct WideShared {
  static constexpr int kWords = WideShape<Q>::kUnit * Form<QuantTraits<Q>>::kSubs * 32;  // a warp
  static constexpr int kScales = kWideStages * kWideStageBytes;
  static constexpr int kBarriers = kScales + kWideWarps * kWords * 4;
  static constexpr int kBytes = 1024 + kBarriers + 2 * kWideStages * 8;
};

// The ring, and the stage that its user comes to next.
struct WideRing {
  uint32_t stages;    // in shared memory
  uint32_t barriers;  // of full stages, then of empty ones
  int stage;
  int parity;
  __device__ __forceinline__ uint32_t data() const { return stages + stage * kWideStageBytes; }
  __device__ __forceinline__ uint32_t full() const { return barriers + 8 * stage; }
  __device__ __forceinline__ uint32_t empty() const { return full() + 8 * kWideStages; }
  __device__ __forceinline__ void skip(int n) {
    stage += n;
    if (stage >= kWideStages) {
      stage -= kWideStages;
      parity ^= 1;
    }
  }
};

// The producer's part: one thread.
__device__ __forceinline__ void fill_ring(const CUtensorMap& input, int n_units, int column0,
                                          WideRing ring) {
  for (int step = 0; step < n_units * kWideUnitStages; ++step) {
    barrier_wait(ring.empty(), ring.parity ^ 1);
    barrier_expect(ring.full(), kWideStageBytes);
    load_box(ring.data(), &input, step * 64, column0, ring.full());
    ring.skip(1);
  }
}

// A warp's strip against the block's input, every other unit from `first` on.
template <QuantType Q>
__device__ __forceinline__ void multiply_strip(const WideReader<Q>& reader, int first,
                                               const uint32_t* grid, uint32_t* words, WideRing ring,
                                               float (&acc)[2][64]) {
  using T = QuantTraits<Q>;
  using S = WideShape<Q>;
  const WideLane& lane = reader.lane;
  StripPiece<T> pieces[S::kAhead];
  UnitScales<Q, kWideNt> scales;
  WideCursor here = reader.at(first);
#pragma unroll
  for (int k = 0; k < S::kAhead; ++k) reader.load(here, k, pieces[k]);
  reader.load(first, scales);
  wait_for_previous();
  uint32_t a[2][2][2][4];  // [parity][tile][k16 step]
  uint32_t before = 0;     // barrier of the stage before this one
  const auto give_back = [&] {
    if (before != 0 && threadIdx.x % 32 == 0) barrier_arrive(before);
  };
  for (int unit = first; unit < reader.n_units; unit += 2) {
    const WideCursor next = reader.after(here, unit);
    __syncwarp();  // nobody reads the scales of the unit before
    reader.put(scales, unit, words);
    __syncwarp();
    reader.load(unit + 2, scales);
#pragma unroll
    for (int k = 0; k < S::kUnit; ++k) {
      StripPiece<T>& piece = pieces[k % S::kAhead];
      wide_piece<Q>(piece, words + k * Form<T>::kSubs * 32 + 4 * lane.g, grid, lane, a[k % 2]);
      const bool same = k + S::kAhead < S::kUnit;
      reader.load(same ? here : next, (k + S::kAhead) % S::kUnit, piece);
      if (k % 2 == 0) barrier_wait(ring.full(), ring.parity);
      const uint64_t b = swizzled_rows(ring.data() + k % 2 * 64);
      const int add = k > 0 || unit != first;
      products_begin();
      wide_mma(acc[0], a[k % 2][0][0], b, add);
      wide_mma(acc[1], a[k % 2][1][0], b, add);
      wide_mma(acc[0], a[k % 2][0][1], b + 2, 1);
      wide_mma(acc[1], a[k % 2][1][1], b + 2, 1);
      products_commit();
      products_wait<1>();
      if (k % 2 == 0) {  // those of the stage before have ended
        give_back();
        before = ring.empty();
      } else {
        ring.skip(1);
      }
    }
    ring.skip(kWideUnitStages);
    here = next;
  }
  products_wait<0>();
  give_back();
}

template <QuantType Q, bool kGated>
__global__ void __launch_bounds__(kWideThreads, 1)
    wide_kernel(const __grid_constant__ WideParams p, const __grid_constant__ CUtensorMap input) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using Shared = WideShared<Q>;
  extern __shared__ unsigned char raw[];
  unsigned char* const shared = raw + (-shared_address(raw) & 1023);
  const uint32_t stages = shared_address(shared);
  WideRing ring{stages, stages + Shared::kBarriers, 0, 0};
  let_next_start();
  if (threadIdx.x == 0) {
    for (int i = 0; i < kWideStages; ++i) {
      barrier_init(ring.barriers + 8 * i, 1);
      barrier_init(ring.barriers + 8 * (kWideStages + i), kWideWarps / 2);
    }
    barriers_ready();
  }
  __syncthreads();
  const int column0 = blockIdx.x % p.n_column_tiles * kWideColumns;
  if (threadIdx.x >= kWideMultipliers) {
    give_registers<24>();
    if (threadIdx.x == kWideMultipliers) {
      wait_for_previous();
      fill_ring(input, p.n_units, column0, ring);
    }
  } else {
    take_registers<240>();
    // The same for a warp, which the compiler is to know.
    const int warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0);
    const int strip = blockIdx.x / p.n_column_tiles * kWideStrips + warp % kWideStrips;
    const WideLane lane(threadIdx.x % 32);
    const WideReader<Q> reader{wide_group<kGated>(p, strip, lane.g / 4), p.planes, p.n_pieces,
                               p.n_units, lane};
    auto* words = reinterpret_cast<uint32_t*>(shared + Shared::kScales) + warp * Shared::kWords;
    if (warp >= kWideStrips) ring.skip(kWideUnitStages);
    float acc[2][64];
    multiply_strip<Q>(reader, warp / kWideStrips, p.grid, words, ring, acc);
    swap_halves(acc, reinterpret_cast<float4*>(shared));
    constexpr float kUp = binary_power(kDown<QuantTraits<Q>>);
    finish_wide<kGated>(p, acc, kUp, strip, column0);
  }
#endif
}

template <QuantType Q, bool kGated>
void launch_wide_kernel(const Exec& exec, const WideParams& p, int n_strips,
                        const CUtensorMap& input) {
  static const int64_t most_bytes = allow_shared(wide_kernel<Q, kGated>);
  constexpr int kBytes = WideShared<Q>::kBytes;
  CHECK_LE(kBytes, most_bytes);
  const auto blocks = static_cast<unsigned>(div_up(n_strips, kWideStrips) * p.n_column_tiles);
  launch(exec, wide_kernel<Q, kGated>, dim3(blocks), dim3(kWideThreads), size_t{kBytes}, p, input);
}

template <QuantType Q>
void launch_wide(const Exec& exec, const ProductArgs& args, const GatedOutput* gated) {
  WideParams p{};
  set_product(args, p);
  // A warpgroup without a unit would have no sums: the second one of two may be all zeros.
  p.n_units = static_cast<int>(std::max<int64_t>(div_up(p.n_pieces, WideShape<Q>::kUnit), 2));
  p.n_column_tiles = static_cast<int>(div_up(p.n, kWideColumns));
  const CUtensorMap input = wide_input_map(args.in);
  if (gated != nullptr) {
    p.gelu = gated->gelu;
    p.gated_to = gated->to.bf16;
    launch_wide_kernel<Q, true>(exec, p, p.parts[1].first_group, input);
    return;
  }
  p.whole = args.out_stride % 4 == 0 && reinterpret_cast<uintptr_t>(args.out) % 16 == 0;
  for (int i = 0; i < p.n_parts; ++i) p.whole = p.whole && p.parts[i].first_column % 4 == 0;
  launch_wide_kernel<Q, false>(exec, p, static_cast<int>(div_up(p.n_groups, 2)), input);
}

}  // namespace spillway::cuda

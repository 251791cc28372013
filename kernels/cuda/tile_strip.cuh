// Matrix products for 9 to some hundred rows of bf16 input on tensor cores that take bf16 at full
// rate (sm_80, sm_90). A warp holds a strip, 32 rows of weights (two groups), against NT * 8 rows
// of input; a block holds several strips, which share the input in shared memory, and several parts
// of the columns; on sm_90 a cluster of blocks may share the columns as well. Sums of the parts
// meet in shared memory in one order. How weights are read: strip_weights.cuh.
//   Bytes: the weights once for every 64 rows of input, the input once a block and part.
#pragma once

#include "kernels/cuda/activation.cuh"
#include "kernels/cuda/quantize.cuh"
#include "kernels/cuda/strip_weights.cuh"

namespace spillway::cuda {

struct StripParams {
  ProductPart parts[3];
  int n_parts;
  Planes planes;
  uint32_t group_bytes;
  int n_groups;
  int n_strips;
  int n_pieces;
  int n;
  int split;          // blocks that share a strip's columns
  int stages;         // chunks in shared memory: 2 or 3
  const uint16_t* x;  // [n, 32 * n_pieces]
  const uint32_t* grid;
  float* out;
  int64_t out_stride;
  bool add;
  // Gated: a strip is a group of gate, part 0, and the same of up, part 1.
  bool gated;
  bool gelu;
  InputWriter gated_to;
};

// Asks for a warp's share of a unit of the input, [piece][row][32 columns]. The 16-byte units 0 to
// 3 of a row lie at unit ^ 2 in every other pair of rows, so that the lanes of a fragment read
// different banks. Pieces and rows beyond the input stay as they are: nobody reads their sums.
template <QuantType Q, int NT>
__device__ __forceinline__ void stage_unit(const StripParams& p, int unit, int column0,
                                           unsigned char* to) {
  using S = StripShape<Q, NT>;
  constexpr int kLanes = 4 * S::kUnit;  // that a row takes
  constexpr int kRows = 32 / kLanes;    // of a warp at once
  const int lane = threadIdx.x;
  const int k = lane % kLanes / 4;
  if (!S::kWhole && unit * S::kUnit + k >= p.n_pieces) return;
  const int n_rows = min(S::kColumns, p.n - column0);
  const int step = kRows * blockDim.z;
  int row = kRows * threadIdx.z + lane / kLanes;
  const int64_t stride = static_cast<int64_t>(p.n_pieces) * kPiece;
  const uint16_t* from =
      p.x + (column0 + row) * stride + unit * (S::kUnit * kPiece) + lane % kLanes * 8;
  to += k * S::kPieceBytes;
  for (; row < n_rows; row += step) {
    copy_async(to + row * 64 + 16 * (lane % 4 ^ (row & 2)), from);
    from += step * stride;
  }
}

// The group of weights of a lane: the upper or the lower half of a strip.
__device__ __forceinline__ const std::byte* strip_data(const StripParams& p, int strip, int half) {
  // A warp without a strip of its own reads the last group and throws its sums away.
  const int group = min(p.gated ? strip : 2 * strip + half,
                        p.gated ? p.parts[1].first_group - 1 : p.n_groups - 1);
  const ProductPart& part = p.gated ? p.parts[half] : part_of(p, group);
  const int first = p.gated ? 0 : part.first_group;
  return part.data + static_cast<int64_t>(group - first) * p.group_bytes;
}

__device__ __forceinline__ void cluster_barrier() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile(
      "barrier.cluster.arrive;\n"
      "barrier.cluster.wait;" ::
          : "memory");
#endif
}
// What block `rank` of the cluster has at the place of `mine`.
__device__ __forceinline__ float of_rank(const float* mine, int rank) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  const auto here = static_cast<uint32_t>(__cvta_generic_to_shared(mine));
  float value;
  asm volatile(
      "{\n.reg .u32 there;\n"
      "mapa.shared::cluster.u32 there, %1, %2;\n"
      "ld.shared::cluster.f32 %0, [there];\n}"
      : "=f"(value)
      : "r"(here), "r"(rank)
      : "memory");
  return value;
#else
  return *mine;
#endif
}

// sums [strip][part][column][33 rows]: where a row and a column of a strip's first part is.
template <int kColumns>
__device__ __forceinline__ float* sum_place(float* sums, int strip, int column, int row) {
  return sums + (strip * blockDim.y * kColumns + column) * (kTileRows + 1) + row;
}
// Sum of the parts of a block, in their order.
template <int kColumns>
__device__ __forceinline__ float sum_of_parts(const float* first) {
  const int n = blockDim.y;
  float sum = *first;
#pragma unroll 4
  for (int i = 1; i < n; ++i) sum += first[i * (kColumns * (kTileRows + 1))];
  return sum;
}
// Sum of what the blocks of a cluster have in one place, in their order.
__device__ __forceinline__ float sum_of_blocks(const float* mine, int split) {
  float of[kMostSplit];
#pragma unroll
  for (int rank = 0; rank < kMostSplit; ++rank) {
    if (rank < split) of[rank] = of_rank(mine, rank);
  }
  float sum = of[0];
#pragma unroll
  for (int rank = 1; rank < kMostSplit; ++rank) {
    if (rank < split) sum += of[rank];
  }
  return sum;
}

__device__ __forceinline__ void put_gated(const StripParams& p, int strip, int column, int row,
                                          float gate, float up) {
  const InputWriter& to = p.gated_to;
  const float value = gated(gate, up, p.gelu);
  const int64_t at = column * to.out.cols + strip * 16 + row;
  if (to.forms & kFloatForm) to.out.x[at] = value;
  to.out.bf16[at] = __bfloat16_as_ushort(__float2bfloat16_rn(value));
}

// Adds the parts' sums up, one thread an output; blocks of a cluster share the outputs.
template <QuantType Q, int NT>
__device__ __forceinline__ void finish_strips(const StripParams& p, const float (&acc)[2][NT][4],
                                              int block, int rank, int column0, float* sums) {
  constexpr int kColumns = 8 * NT;
  constexpr float kUp = binary_power(kDown<QuantTraits<Q>>);
  const int t = threadIdx.x % 4;
  const int g = threadIdx.x / 4;
  float* mine = sums + (threadIdx.z * blockDim.y + threadIdx.y) * (kColumns * (kTileRows + 1));
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int nt = 0; nt < NT; ++nt) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {  // lane g's four rows are consecutive
        const int column = 8 * nt + 2 * t + j % 2;
        mine[column * (kTileRows + 1) + 4 * g + 2 * i + j / 2] = acc[i][nt][j] * kUp;
      }
    }
  }
  __syncthreads();
  const int rows = p.gated ? 16 : kTileRows;
  const int threads = static_cast<int>(32 * blockDim.y * blockDim.z);
  const int thread = (threadIdx.z * blockDim.y + threadIdx.y) * 32 + threadIdx.x;
  const int n_sums = static_cast<int>(blockDim.z) * kColumns * kTileRows;
  if (p.split > 1) {
    for (int i = thread; i < n_sums; i += threads) {
      float* at = sum_place<kColumns>(sums, i / kTileRows / kColumns, i / kTileRows % kColumns,
                                      i % kTileRows);
      *at = sum_of_parts<kColumns>(at);
    }
    cluster_barrier();
  }
  const auto sum_at = [&](float* at) {
    return p.split > 1 ? sum_of_blocks(at, p.split) : sum_of_parts<kColumns>(at);
  };
  const int n_outputs = blockDim.z * kColumns * rows;
  for (int i = rank * threads + thread; i < n_outputs; i += threads * p.split) {
    const int row = i % rows;
    const int in_block = i / rows / kColumns;
    const int column = i / rows % kColumns;
    const int strip = block * blockDim.z + in_block;
    if (column0 + column >= p.n || strip >= p.n_strips) continue;
    float* at = sum_place<kColumns>(sums, in_block, column, row);
    const float sum = sum_at(at);
    if (p.gated) {
      put_gated(p, strip, column0 + column, row, sum, sum_at(at + 16));
      continue;
    }
    const int group = 2 * strip + row / 16;
    if (group >= p.n_groups) continue;
    const ProductPart& to = part_of(p, group);
    const int part_row = (group - to.first_group) * 16 + row % 16;
    if (part_row >= to.rows) continue;
    float* out = p.out + (column0 + column) * p.out_stride + to.first_column + part_row;
    *out = p.add ? *out + sum : sum;
  }
  if (p.split > 1) cluster_barrier();  // nobody leaves while its sums are read
}

// A lane's weights: four rows of its strip, the units before `end`.
template <QuantType Q, int NT>
struct StripReader {
  using T = QuantTraits<Q>;
  using S = StripShape<Q, NT>;
  const StripParams& p;
  const std::byte* data;  // of the group
  int end;
  int g;
  int t;

  __device__ __forceinline__ void ask(int unit, int k, StripPiece<T>& to) const {
    const int piece = unit * S::kUnit + k;
    if (unit >= end || (!S::kWhole && piece >= p.n_pieces)) return;
    load_strip_piece<Q>(data, p.planes, piece, g % 4, t, to);
  }
  __device__ __forceinline__ void ask(int unit, UnitScales<Q, NT>& to) const {
    if (unit < end) load_unit_scales<Q, NT>(data, p.planes, p.n_pieces, unit, g % 4, t, to);
  }

  // A unit against its input x; asks for the pieces that follow, at last those of unit `next`.
  __device__ __forceinline__ void multiply(int unit, int next, const uint32_t* words,
                                           const unsigned char* x,
                                           StripPiece<T> (&pieces)[S::kAhead],
                                           float (&acc)[2][NT][4]) const {
    const int flip = 16 * (g & 2);
    const unsigned char* x0 = x + 64 * g + 8 * t + flip;
    const unsigned char* x1 = x + 64 * g + 8 * t + (flip ^ 32);
    const int count = S::kWhole ? S::kUnit : min(S::kUnit, p.n_pieces - unit * S::kUnit);
#pragma unroll 1
    for (int k0 = 0; k0 < S::kUnit; k0 += S::kAhead) {
#pragma unroll
      for (int j = 0; j < S::kAhead; ++j) {
        const int k = k0 + j;
        if (!S::kWhole && k >= count) break;
        strip_piece<Q, NT>(pieces[j], words + k * Form<T>::kSubs * 32 + 4 * g, p.grid,
                           x0 + k * S::kPieceBytes, x1 + k * S::kPieceBytes, t, acc);
        const bool same = k + S::kAhead < S::kUnit;
        ask(same ? unit : next, same ? k + S::kAhead : k + S::kAhead - S::kUnit, pieces[j]);
      }
    }
  }
};

// blockDim: 32 lanes, parts of the columns, strips.
template <QuantType Q, int NT>
__global__ void __launch_bounds__(32 * kMostStripWarps, 1)
    strip_kernel(const __grid_constant__ StripParams p) {
  using T = QuantTraits<Q>;
  using S = StripShape<Q, NT>;
  extern __shared__ __align__(16) unsigned char shared[];
  let_next_start();
  const int t = threadIdx.x % 4;
  const int g = threadIdx.x / 4;
  const int parts = blockDim.y;
  const int rank = blockIdx.x % p.split;
  const int block = blockIdx.x / p.split;
  const int column0 = blockIdx.y * S::kColumns;
  const int n_units = (p.n_pieces + S::kUnit - 1) / S::kUnit;
  const int first = n_units * rank / p.split;
  const int end = n_units * (rank + 1) / p.split;
  const int stage_bytes = parts * S::kUnitBytes;
  const int ring_bytes = p.stages * stage_bytes;
  unsigned char* const stages = shared + threadIdx.y * S::kUnitBytes;  // this part's
  auto* words = reinterpret_cast<uint32_t*>(shared + ring_bytes) +
                (threadIdx.z * parts + threadIdx.y) * (S::kUnit * Form<T>::kSubs * 32);

  const StripReader<Q, NT> reader{p, strip_data(p, block * blockDim.z + threadIdx.z, g / 4), end, g,
                                  t};
  int unit = first + threadIdx.y;
  float acc[2][NT][4] = {};
  StripPiece<T> pieces[S::kAhead];
  UnitScales<Q, NT> scales;
#pragma unroll
  for (int k = 0; k < S::kAhead; ++k) reader.ask(unit, k, pieces[k]);
  reader.ask(unit, scales);
  wait_for_previous();
  int ahead = unit;  // unit of the input that is asked for next
  int to = 0;        // and where it goes
  const auto stage = [&] {
    if (ahead < end) stage_unit<Q, NT>(p, ahead, column0, stages + to);
    commit_copies();
    ahead += parts;
    to = to + stage_bytes == ring_bytes ? 0 : to + stage_bytes;
  };
  for (int i = 0; i < p.stages - 1; ++i) stage();
  int from = 0;
  for (int unit0 = first; unit0 < end; unit0 += parts) {
    __syncwarp();  // nobody reads the scales of the unit before
    if (unit < end) put_unit_scales<Q, NT>(scales, unit, words, g, t);
    reader.ask(unit + parts, scales);
    if (p.stages == 2) {
      wait_copies<0>();
    } else {
      wait_copies<1>();
    }
    __syncthreads();  // the chunk is there, and all have done with the one before
    stage();
    if (unit < end) reader.multiply(unit, unit + parts, words, stages + from, pieces, acc);
    from = from + stage_bytes == ring_bytes ? 0 : from + stage_bytes;
    unit += parts;
  }
  wait_copies<0>();
  __syncthreads();
  finish_strips<Q, NT>(p, acc, block, rank, column0, reinterpret_cast<float*>(shared));
}

template <QuantType Q, int NT>
void launch_strip(const Exec& exec, StripParams& p, const TilePlan& plan) {
  using S = StripShape<Q, NT>;
  const int64_t shared_bytes = strip_shared_bytes(plan, NT, Form<QuantTraits<Q>>::kSubs);
  static const int64_t most_bytes = allow_shared(strip_kernel<Q, NT>);
  CHECK_LE(shared_bytes, most_bytes);
  CHECK_LE(plan.strips * plan.parts, kMostStripWarps);
  CHECK_LE(plan.split, kMostSplit);
  p.split = plan.split;
  p.stages = plan.stages;
  const dim3 grid(static_cast<unsigned>(div_up(p.n_strips, plan.strips) * plan.split),
                  static_cast<unsigned>(div_up(p.n, S::kColumns)));
  const dim3 block(32, static_cast<unsigned>(plan.parts), static_cast<unsigned>(plan.strips));
  launch_clusters(exec, static_cast<unsigned>(plan.split), strip_kernel<Q, NT>, grid, block,
                  static_cast<size_t>(shared_bytes), p);
}

template <QuantType Q>
void launch_strips(const Exec& exec, const ProductArgs& args, const GatedOutput* gated) {
  StripParams p{};
  set_product(args, p);
  p.x = args.in.bf16;
  p.n_strips = static_cast<int>(div_up(p.n_groups, 2));
  if (gated != nullptr) {
    p.gated = true;
    p.gelu = gated->gelu;
    p.gated_to = input_writer(gated->to, gated->forms);
    p.n_strips = p.parts[1].first_group;
  }
  const int nt = p.n <= 16 ? 2 : p.n <= 32 ? 4 : 8;
  const TilePlan plan =
      exec.tile_plan != nullptr
          ? *exec.tile_plan
          : tile_plan(exec, {p.n_strips, p.n_pieces, p.n, nt, Form<QuantTraits<Q>>::kSubs,
                             StripShape<Q, 2>::kAhead});
  if (nt == 2) return launch_strip<Q, 2>(exec, p, plan);
  if (nt == 4) return launch_strip<Q, 4>(exec, p, plan);
  launch_strip<Q, 8>(exec, p, plan);
}

}  // namespace spillway::cuda

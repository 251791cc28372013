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
  int early;          // units of a warp that are asked into L2 at once
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

// Asks for a warp's share of a unit of the input, [row][pieces of 32 columns]. Pieces and rows
// beyond the input stay as they are: nobody reads their sums.
template <QuantType Q, int NT>
__device__ __forceinline__ void stage_unit(const StripParams& p, int unit, int column0,
                                           unsigned char* to) {
  using S = StripShape<Q, NT>;
  constexpr int kLanes = 4 * S::kUnit;  // that a row takes
  constexpr int kRows = 32 / kLanes;    // of a warp at once
  const int lane = threadIdx.x;
  if (!S::kWhole && unit * S::kUnit + lane % kLanes / 4 >= p.n_pieces) return;
  const int n_rows = min(S::kColumns, p.n - column0);
  const int step = kRows * blockDim.z;
  int row = kRows * threadIdx.z + lane / kLanes;
  const int64_t stride = static_cast<int64_t>(p.n_pieces) * kPiece;
  const uint16_t* from =
      p.x + (column0 + row) * stride + unit * (S::kUnit * kPiece) + lane % kLanes * 8;
  to += row * S::kRowBytes + lane % kLanes * 16;
#pragma unroll 2
  for (; row < n_rows; row += step) {
    copy_async(to, from);
    to += step * S::kRowBytes;
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

// What a block wrote before it, the others of its cluster read after it; `ordered` or not, all come
// to it before one leaves.
template <bool kOrdered>
__device__ __forceinline__ void cluster_barrier() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  if (kOrdered) {
    asm volatile("barrier.cluster.arrive.release;" ::: "memory");
  } else {
    asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory");
  }
  asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
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
    cluster_barrier<true>();
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
  if (p.split > 1) cluster_barrier<false>();  // nobody leaves while its sums are read
}

// What a warp reads: its strip, the units before `end`.
template <QuantType Q, int NT>
struct StripReader {
  using T = QuantTraits<Q>;
  using S = StripShape<Q, NT>;
  const StripParams& p;
  const std::byte* data;  // the lane's group
  StripRing<Q> ring;
  int end;
  int g;
  int t;

  // A group of copies: pieces k to k + kStep of a unit.
  __device__ __forceinline__ void ask(int unit, int k) const {
#pragma unroll
    for (int i = k; i < k + S::kStep; ++i) {
      const int piece = unit * S::kUnit + i;
      if (unit < end && (S::kWhole || piece < p.n_pieces)) ring.ask(piece, i % S::kAhead);
    }
    commit_copies();
  }
  __device__ __forceinline__ void ask(int unit, UnitScales<Q, NT>& to) const {
    if (unit < end) load_unit_scales<Q, NT>(data, p.planes, p.n_pieces, unit, g % 4, t, to);
  }

  // The units that the warp has after `unit`, as many as are to come early.
  __device__ __forceinline__ void fetch(int unit, int parts) const {
    if (t != 0 || g % 4 != 0) return;  // a lane for each half of the strip
    for (int i = 0; i < p.early; ++i) {
      unit += parts;
      if (unit >= end) return;
      fetch_pieces<Q>(data, p.planes, unit * S::kUnit, min((unit + 1) * S::kUnit, p.n_pieces));
    }
  }

  // A unit against its input x, from the lane's row and columns on; asks for the pieces that
  // follow, at last those of unit `next`.
  __device__ __forceinline__ void multiply(int unit, int next, const uint32_t* words,
                                           const unsigned char* x, float (&acc)[2][NT][4]) const {
    const int count = S::kWhole ? S::kUnit : min(S::kUnit, p.n_pieces - unit * S::kUnit);
#pragma unroll 1
    for (int k0 = 0; k0 < S::kUnit; k0 += S::kAhead) {
      const bool same = k0 + S::kAhead < S::kUnit;
#pragma unroll
      for (int j = 0; j < S::kAhead; j += S::kStep) {
        wait_weights<S::kGroups - 1>();
        if (RingPiece<T>::kShared) __syncwarp();
#pragma unroll
        for (int i = j; i < j + S::kStep; ++i) {
          const int k = k0 + i;
          if (S::kWhole || k < count) {
            StripPiece<T> piece;
            ring.read(i, piece);
            strip_piece<Q, NT>(piece, words + k * Form<T>::kSubs * 32 + 4 * g, p.grid, x + k * 64,
                               t, acc);
          }
        }
        if (RingPiece<T>::kShared) __syncwarp();  // the others have read these pieces too
        ask(same ? unit : next, same ? k0 + S::kAhead + j : j);
      }
    }
  }
};

// blockDim: 32 lanes, parts of the columns, strips.
template <QuantType Q, int NT>
__global__ void __launch_bounds__(32 * kMostStripWarps, 1)
    strip_kernel(const __grid_constant__ StripParams p) {
  using S = StripShape<Q, NT>;
  constexpr int kWordBytes = S::kUnit * Form<QuantTraits<Q>>::kSubs * 128;
  extern __shared__ __align__(16) unsigned char shared[];
  let_next_start();
  const int t = threadIdx.x % 4;
  const int g = threadIdx.x / 4;
  const int parts = blockDim.y;
  const int rank = blockIdx.x % p.split;
  const int block = blockIdx.x / p.split;
  const int column0 = blockIdx.y * S::kColumns;
  const int n_units = (p.n_pieces + S::kUnit - 1) / S::kUnit;
  const int end = n_units * (rank + 1) / p.split;
  // Shared memory: [2][part] units of the input, then each warp's scales and ring.
  unsigned char* const input = shared + threadIdx.y * S::kUnitBytes;
  const int other = parts * S::kUnitBytes;
  const int warp = threadIdx.z * parts + threadIdx.y;
  unsigned char* const mine = shared + 2 * other + warp * (kWordBytes + S::kRingBytes);
  auto* words = reinterpret_cast<uint32_t*>(mine);

  const int strip = block * blockDim.z + threadIdx.z;
  const std::byte* upper = strip_data(p, strip, 0);
  const std::byte* lower = strip_data(p, strip, 1);
  const StripReader<Q, NT> reader{
      p, g < 4 ? upper : lower, StripRing<Q>(mine + kWordBytes, p.planes, upper, lower), end, g, t};
  int first = n_units * rank / p.split;
  int unit = first + threadIdx.y;
  UnitScales<Q, NT> scales;
#pragma unroll
  for (int k = 0; k < S::kAhead; k += S::kStep) reader.ask(unit, k);
  reader.ask(unit, scales);
  reader.fetch(unit, parts);
  wait_for_previous();
  if (unit < end) stage_unit<Q, NT>(p, unit, column0, input);
  commit_copies();
  wait_copies<0>();
  __syncthreads();
  float acc[2][NT][4] = {};
  int from = 0;
  const int lane_place = g * S::kRowBytes + 8 * t;
  for (; first < end; first += parts, unit += parts) {
    __syncwarp();  // nobody reads the scales of the unit before
    if (unit < end) put_unit_scales<Q, NT>(scales, unit, words, g, t);
    __syncwarp();
    const int next = unit + parts;
    reader.ask(next, scales);
    // Goes with the first group of weights.
    if (next < end) stage_unit<Q, NT>(p, next, column0, input + (other - from));
    if (unit < end) reader.multiply(unit, next, words, input + from + lane_place, acc);
    wait_weights<S::kGroups - 1>();
    __syncthreads();  // the next unit's input is there, and all have done with this one's
    from = other - from;
  }
  wait_copies<0>();
  __syncthreads();
  finish_strips<Q, NT>(p, acc, block, rank, column0, reinterpret_cast<float*>(shared));
}

template <QuantType Q, int NT>
void launch_strip(const Exec& exec, StripParams& p) {
  using S = StripShape<Q, NT>;
  constexpr int kSubs = Form<QuantTraits<Q>>::kSubs;
  static const int64_t most_bytes = allow_shared(strip_kernel<Q, NT>);
  const TilePlan plan =
      exec.tile_plan != nullptr
          ? *exec.tile_plan
          : tile_plan(exec, {p.n_strips, p.n_pieces, p.n, NT, kSubs, S::kRingBytes, most_bytes});
  const int64_t shared_bytes = strip_shared_bytes(plan, NT, kSubs, S::kRingBytes);
  CHECK_LE(shared_bytes, most_bytes);
  CHECK_LE(plan.strips * plan.parts, kMostStripWarps);
  CHECK_LE(plan.split, kMostSplit);
  p.split = plan.split;
  p.early = plan.early;
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
  if (p.n <= 16) return launch_strip<Q, 2>(exec, p);
  if (p.n <= 32) return launch_strip<Q, 4>(exec, p);
  launch_strip<Q, 8>(exec, p);
}

}  // namespace spillway::cuda

// peer_sum of many rows: prefill's sums. A thread block a row: it pushes its row, rounded to bf16,
// into the peers' mailboxes, raises a flag there, waits for theirs and adds.
// Bytes a value and peer: 2 over the link; beside it 4 read of partial and of x, 4 written of x, 2
// read back, and the forms. 2048 rows of 4096 values take 96 us, 36 of it without the other rank
// (2 x H200, 2026-11-26; docs/bench/gpus.md).
//
// No deadlock: a block pushes before it waits, and waits only for the peers' blocks of its own
// number in the same launch. Blocks start in the order of their numbers and each keeps its place
// until it ends, so of those that have not ended anywhere the lowest has a place on every rank:
// there all with lower numbers have ended. It ends, and then the next, however few fit at once.
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/peer_rows.cuh"
#include "kernels/cuda/peer_words.cuh"

namespace spillway::cuda {
namespace {

struct Round {
  PeerGroup group;
  View2D<const float> partial;
  RowEnd end;
  int64_t first_row;
};

// Where a mailbox's row i of this round lies, in rows, as written by rank `from`.
__device__ __forceinline__ int64_t round_place(const PeerGroup& group, const PeerLayout& layout,
                                               int from, uint32_t time, int64_t i) {
  return (static_cast<int64_t>(time % 2) * group.size + from) * layout.round_rows + i;
}

// The flag of thread r's rank, r below the size.
__device__ __forceinline__ uint32_t* round_flag(const PeerGroup& group, const PeerLayout& layout,
                                                int mailbox, int64_t place) {
  return reinterpret_cast<uint32_t*>(group.mailboxes[mailbox] + layout.flags) + place;
}
__device__ __forceinline__ uint2* round_half(const PeerGroup& group, const PeerLayout& layout,
                                             int mailbox, int64_t place) {
  return reinterpret_cast<uint2*>(group.mailboxes[mailbox] + layout.halves) +
         place * (group.dim / kQuadColumns);
}

template <int kQuads>
__global__ void __launch_bounds__(1024) round_kernel(const Round round) {
  __shared__ float partial_sums[32];
  __shared__ double partial_doubles[32];
  const PeerGroup& group = round.group;
  const PeerLayout layout = peer_layout(group.size, group.max_rows, group.dim);
  const int64_t i = blockIdx.x;
  const int64_t row = round.first_row + i;
  const ThreadQuads quads{threadIdx.x, blockDim.x, group.dim / kQuadColumns};
  let_next_start();
  wait_for_previous();

  uint32_t* clock =
      reinterpret_cast<uint32_t*>(group.mailboxes[group.rank] + layout.round_times) + i;
  const uint32_t time = __ldcg(clock) + 1;
  uint2 own[kQuads];
#pragma unroll
  for (int k = 0; k < kQuads; ++k) {
    own[k] = quads.has(k) ? bf16_quad(load_quad(round.partial.data + row * round.partial.stride,
                                                quads.at(k), group.dim, true))
                          : uint2{0, 0};
  }
  const int64_t mine = round_place(group, layout, group.rank, time, i);
  for (int step = 1; step < group.size; ++step) {
    uint2* to = round_half(group, layout, (group.rank + step) % group.size, mine);
#pragma unroll
    for (int k = 0; k < kQuads; ++k) {
      if (quads.has(k)) to[quads.at(k)] = own[k];
    }
  }
  __syncthreads();  // the whole row is on its way: a flag behind it vouches for it
  const auto peer = static_cast<int>(threadIdx.x);
  if (peer < group.size && peer != group.rank) {
    store_flag(round_flag(group, layout, peer, mine), time);
    const int64_t theirs = round_place(group, layout, peer, time, i);
    const uint32_t* flag = round_flag(group, layout, group.rank, theirs);
    Patience patience{group.abort};
    while (load_flag(flag) != time && !patience.is_over()) {
    }
  }
  if (threadIdx.x == 0) __stcg(clock, time);
  __syncthreads();

  float4 values[kQuads], x[kQuads];
#pragma unroll
  for (int k = 0; k < kQuads; ++k) values[k] = {0, 0, 0, 0};
  for (int r = 0; r < group.size; ++r) {
    const uint2* from =
        round_half(group, layout, group.rank, round_place(group, layout, r, time, i));
#pragma unroll
    for (int k = 0; k < kQuads; ++k) {
      if (!quads.has(k)) continue;
      const float4 v = float_quad(r == group.rank ? own[k] : __ldcg(from + quads.at(k)));
      float4& sum = values[k];
      sum = r == 0 ? v : float4{sum.x + v.x, sum.y + v.y, sum.z + v.z, sum.w + v.w};
    }
  }
  load_x(round.end, row, quads, x);
  finish_row(round.end, row, quads, values, x, LateWeights{round.end, quads},
             BlockSum{partial_sums, partial_doubles});
}

}  // namespace

void peer_rows_sum(const Exec& exec, const PeerGroup& group, View2D<const float> partial,
                   const RowEnd& end) {
  const NormShape shape = norm_shape(group.dim);
  const auto kernel = shape.quads == 1   ? round_kernel<1>
                      : shape.quads == 2 ? round_kernel<2>
                                         : round_kernel<4>;
  const int64_t most = peer_layout(group.size, group.max_rows, group.dim).round_rows;
  for (int64_t first = 0; first < partial.rows; first += most) {
    const int64_t rows = std::min(most, partial.rows - first);
    launch(exec, kernel, dim3(static_cast<unsigned>(rows)), dim3(shape.threads), 0,
           Round{group, partial, end, first});
  }
}

}  // namespace spillway::cuda

// peer_sum of few rows: decode's sums, where the way from the last part to the first code of the
// next product counts. A row is spread over the thread blocks of a cluster, so that several
// multiprocessors push and poll; its threads are numbered through them, and lie on the row as
// rms_norm's do, so the bits are its.
// Bytes a value and peer: 8 over the link; beside it 4 read of partial and of x, 4 written of x,
// 8 read back, and the forms. A row of 4096 values takes 4.6 us in a graph, 2.8 of it without the
// other rank; 64 rows 11 and 3.7 (2 x H200, 2026-11-26; docs/bench/gpus.md).
//
// No deadlock: a kernel pushes before it waits, and what it waits for is pushed by the peer's block
// of the same number. Blocks start in the order of their numbers, so of those that have not ended
// anywhere the lowest runs on every rank.
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/peer.h"
#include "kernels/cuda/peer_rows.cuh"
#include "kernels/cuda/peer_words.cuh"

namespace spillway::cuda {
namespace {

constexpr unsigned kMostThreads = 512;  // a block: 128 registers a thread
constexpr int kLinesAQuad = 2;

// Which of the row's blocks this is.
__device__ __forceinline__ unsigned part_of_row(unsigned parts) { return blockIdx.x % parts; }

__device__ __forceinline__ void arrive_in_cluster() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#endif
}
__device__ __forceinline__ void wait_for_cluster() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}
// To the same place of another block's shared memory.
template <typename T>
__device__ __forceinline__ void store_in_part(T* place, unsigned part, T value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  const auto here = static_cast<uint32_t>(__cvta_generic_to_shared(place));
  uint32_t there;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(here), "r"(part));
  if constexpr (sizeof(T) == 4) {
    asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(there), "f"(value) : "memory");
  } else {
    asm volatile("st.shared::cluster.f64 [%0], %1;" ::"r"(there), "d"(value) : "memory");
  }
#endif
}

// Sums over a row that several blocks share, with the bits of one block that had all its threads.
struct ClusterSum {
  float* partial;  // 32, as in BlockSum
  double* partial_double;
  unsigned parts;

  __device__ __forceinline__ float operator()(float sum) const { return over(sum, partial); }
  __device__ __forceinline__ double operator()(double sum) const {
    return over(sum, partial_double);
  }

 private:
  template <typename T>
  __device__ __forceinline__ T over(T sum, T* sums) const {
    if (parts == 1) return block_sum(sum, sums);
    sum = warp_sum(sum);
    const unsigned lane = threadIdx.x % 32;
    const unsigned warps = blockDim.x / 32;
    const unsigned warp = part_of_row(parts) * warps + threadIdx.x / 32;
    if (lane < parts) store_in_part(sums + warp, lane, sum);
    __syncwarp();
    arrive_in_cluster();
    wait_for_cluster();
    return warp_sum(lane < parts * warps ? sums[lane] : T{0});
  }
};

struct SmallSum {
  PeerGroup group;
  View2D<const float> partial;
  RowEnd end;
  unsigned row_threads;  // of all parts of a row, as norm_shape() says
};

// Lines of a row in a slot of a rank's mailbox, as written by rank `from`: the first halves of all
// quads, then the second ones, so that neighbours in a warp are neighbours in memory.
__device__ __forceinline__ Line* row_lines(const PeerGroup& group, int mailbox, int from,
                                           uint32_t slot, int64_t row) {
  const int64_t small_rows = min(group.max_rows, kPeerSmallRows);
  const int64_t index = (static_cast<int64_t>(slot) * group.size + from) * small_rows + row;
  return reinterpret_cast<Line*>(group.mailboxes[mailbox]) + index * (group.dim / 2);
}

// own: values of this rank at kLines places of its row; becomes the sum over the ranks, added in
// their order. Lines of all peers are asked for at once.
template <int kPeers, int kLines>
__device__ __forceinline__ void receive(const PeerGroup& group, const int64_t (&places)[kLines],
                                        const bool (&wanted)[kLines], uint32_t time, int64_t row,
                                        float2 (&own)[kLines]) {
  Line got[kPeers][kLines];
  const int peers = group.size - 1;
  const Line* slot = row_lines(group, group.rank, 0, time % 2, row);
  const int64_t a_rank = min(group.max_rows, kPeerSmallRows) * (group.dim / 2);
  Patience patience{group.abort};
  while (true) {
    bool all = true;
#pragma unroll
    for (int p = 0; p < kPeers; ++p) {
      if (kPeers > 1 && p >= peers) continue;
      const int from = p + (p >= group.rank ? 1 : 0);
      const Line* lines = slot + from * a_rank;
#pragma unroll
      for (int l = 0; l < kLines; ++l) {
        if (wanted[l]) got[p][l] = load_line(lines + places[l]);
      }
    }
#pragma unroll
    for (int p = 0; p < kPeers; ++p) {
#pragma unroll
      for (int l = 0; l < kLines; ++l) {
        if (wanted[l] && p < peers) all = all && has_time(got[p][l], time);
      }
    }
    if (all || patience.is_over()) break;
  }
#pragma unroll
  for (int l = 0; l < kLines; ++l) {
    if (!wanted[l]) continue;
    float2 sum{0, 0};
#pragma unroll
    for (int p = 0; p < kPeers; ++p) {
      if (p >= peers) continue;
      const float2 v = values_of(got[p][l]);
      if (p == 0) {
        sum = group.rank == 0 ? float2{own[l].x + v.x, own[l].y + v.y} : v;
      } else {
        if (p == group.rank) sum = {sum.x + own[l].x, sum.y + own[l].y};
        sum = {sum.x + v.x, sum.y + v.y};
      }
    }
    if (group.rank == peers) sum = {sum.x + own[l].x, sum.y + own[l].y};
    own[l] = sum;
  }
}

// values: this rank's quads of the row; becomes the sum. Peers' lines that are in flight together
// take 4 registers each, so with many peers they go one by one.
template <int kQuads, int kPeers>
__device__ __forceinline__ void receive_row(const PeerGroup& group, const ThreadQuads& quads,
                                            uint32_t time, int64_t row, float4 (&values)[kQuads]) {
  constexpr int kLines = kLinesAQuad * kQuads;
  constexpr int kTogether = kPeers == 1 ? kLines : kPeers == 3 ? kLinesAQuad : 1;
  const int64_t n_quads = group.dim / kQuadColumns;
  float2 halves[kLines];
#pragma unroll
  for (int k = 0; k < kQuads; ++k) {
    halves[2 * k] = {values[k].x, values[k].y};
    halves[2 * k + 1] = {values[k].z, values[k].w};
  }
#pragma unroll
  for (int first = 0; first < kLines; first += kTogether) {
    int64_t places[kTogether];
    bool wanted[kTogether];
    float2 own[kTogether];
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      const int line = first + i;
      places[i] = line % 2 * n_quads + quads.at(line / 2);
      wanted[i] = quads.has(line / 2);
      own[i] = halves[line];
    }
    receive<kPeers>(group, places, wanted, time, row, own);
#pragma unroll
    for (int i = 0; i < kTogether; ++i) halves[first + i] = own[i];
  }
#pragma unroll
  for (int k = 0; k < kQuads; ++k) {
    values[k] = {halves[2 * k].x, halves[2 * k].y, halves[2 * k + 1].x, halves[2 * k + 1].y};
  }
}

template <int kQuads>
__device__ __forceinline__ void push_row(const PeerGroup& group, const ThreadQuads& quads,
                                         uint32_t time, int64_t row,
                                         const float4 (&values)[kQuads]) {
  const int64_t n_quads = group.dim / kQuadColumns;
  for (int i = 1; i < group.size; ++i) {
    const int to = (group.rank + i) % group.size;
    Line* lines = row_lines(group, to, group.rank, time % 2, row);
#pragma unroll
    for (int k = 0; k < kQuads; ++k) {
      if (!quads.has(k)) continue;
      store_line(lines + quads.at(k), values[k].x, values[k].y, time);
      store_line(lines + n_quads + quads.at(k), values[k].z, values[k].w, time);
    }
  }
}

template <int kQuads, int kPeers>
__global__ void __launch_bounds__(kMostThreads) small_sum_kernel(const SmallSum sum) {
  __shared__ float partial_sums[32];
  __shared__ double partial_doubles[32];
  const PeerGroup& group = sum.group;
  const auto parts = static_cast<unsigned>(group.parts);
  const int64_t row = blockIdx.x / parts;
  const unsigned thread = part_of_row(parts) * blockDim.x + threadIdx.x;
  // Threads that only fill the last block up have no quads.
  const int64_t n_quads = thread < sum.row_threads ? group.dim / kQuadColumns : 0;
  const ThreadQuads quads{thread, sum.row_threads, n_quads};
  const bool share = parts > 1 && sum.end.weight != nullptr;
  if (share) arrive_in_cluster();  // others may write to shared memory here from now on
  const EarlyWeights<kQuads> weights(sum.end, quads);
  let_next_start();
  wait_for_previous();

  const PeerLayout layout = peer_layout(group.size, group.max_rows, group.dim);
  uint32_t* clock = reinterpret_cast<uint32_t*>(group.mailboxes[group.rank] + layout.small_times) +
                    row * kMostPeerParts + part_of_row(parts);
  const uint32_t time = __ldcg(clock) + 1;
  float4 values[kQuads], x[kQuads];
#pragma unroll
  for (int k = 0; k < kQuads; ++k) {
    values[k] = quads.has(k) ? load_quad(sum.partial.data + row * sum.partial.stride, quads.at(k),
                                         group.dim, true)
                             : float4{0, 0, 0, 0};
  }
  push_row(group, quads, time, row, values);
  load_x(sum.end, row, quads, x);
  receive_row<kQuads, kPeers>(group, quads, time, row, values);
  __syncthreads();  // all have read the clock, and warps are whole again
  if (share) wait_for_cluster();
  if (threadIdx.x == 0) __stcg(clock, time);
  finish_row(sum.end, row, quads, values, x, weights,
             ClusterSum{partial_sums, partial_doubles, parts});
}

template <int kQuads>
void launch_small(const Exec& exec, const SmallSum& sum, dim3 grid, unsigned threads) {
  const auto kernel = sum.group.size == 2   ? small_sum_kernel<kQuads, 1>
                      : sum.group.size <= 4 ? small_sum_kernel<kQuads, 3>
                                            : small_sum_kernel<kQuads, 7>;
  launch_clusters(exec, static_cast<unsigned>(sum.group.parts), kernel, grid, dim3(threads), 0,
                  sum);
}

void small_sum(const Exec& exec, const PeerGroup& group, View2D<const float> partial,
               const RowEnd& end) {
  const NormShape shape = norm_shape(group.dim);
  const auto parts = static_cast<unsigned>(group.parts);
  const auto threads = static_cast<unsigned>(round_up(div_up(shape.threads, int64_t{parts}), 32));
  CHECK_LE(threads, kMostThreads);
  const SmallSum sum{group, partial, end, shape.threads};
  const dim3 grid(static_cast<unsigned>(partial.rows) * parts);
  if (shape.quads == 1) {
    launch_small<1>(exec, sum, grid, threads);
  } else if (shape.quads == 2) {
    launch_small<2>(exec, sum, grid, threads);
  } else {
    launch_small<4>(exec, sum, grid, threads);
  }
}

}  // namespace

// Without clusters a block has the whole row, and at most kMostThreads.
int64_t most_peer_dim(int major) { return kMostThreads * 4 * kQuadColumns * (major >= 9 ? 2 : 1); }

// At least 4 warps a block: with less the meeting costs more than a second multiprocessor gives.
int peer_parts(int major, int64_t dim) {
  const int64_t warps = norm_shape(dim).threads / 32;
  if (major < 9) return 1;
  return warps >= 16 ? 4 : warps >= 8 ? 2 : 1;
}

void peer_sum(const Exec& exec, const PeerGroup& group, View2D<const float> partial,
              View2D<float> x, bool add, const float* weight, float eps, unsigned forms,
              const Input& out) {
  CHECK(group.size >= 2 && group.size <= kMostPeers);
  CHECK_LE(x.rows, group.max_rows);
  CHECK_EQ(x.cols, group.dim);
  CHECK_EQ(partial.rows, x.rows);
  CHECK_EQ(partial.cols, x.cols);
  CHECK_LE(group.dim, most_peer_dim(exec.major));
  CHECK(group.parts == 1 || (exec.major >= 9 && group.parts <= kMostPeerParts));
  CHECK(whole_quads(partial) && whole_quads(x));
  if (x.rows == 0) return;
  const RowEnd end = row_end(x, add, weight, eps, forms, out);
  if (x.rows <= kPeerSmallRows) {
    small_sum(exec, group, partial, end);
  } else {
    peer_rows_sum(exec, group, partial, end);
  }
}

}  // namespace spillway::cuda

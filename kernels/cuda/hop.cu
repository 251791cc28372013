// See hop.h. Bytes a value: 4 read and 4 written over the link by the sender, 4 read and 4 written
// by the receiver in its own memory. Best: 337 GB/s, 2048 rows of 4096 values; one row 3.2 us in a
// graph (2 x NVIDIA H100 80GB HBM3, 2026-11-26).
//
// No deadlock: blocks of a kernel wait for flags of the other GPU alone, never for each other, so
// however few find room at once all end when the other side gets there.
#include <algorithm>

#include "kernels/core/check.h"
#include "kernels/cuda/hop.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/peer_words.cuh"

namespace spillway::cuda {
namespace {

constexpr unsigned kThreads = 256;
constexpr int kQuadsAThread = 4;  // 16 KiB a block: a row of 4096 values is one
constexpr int64_t kMostBlocks = 256;

// Times wrap around.
__device__ __forceinline__ bool has_come(uint32_t flag, uint32_t time) {
  return static_cast<int32_t>(flag - time) >= 0;
}

// By one thread of every block; the first block's tells the host when it takes long.
__device__ __forceinline__ void wait_for_time(const uint32_t* flag, uint32_t time,
                                              const HopHost& host, uint32_t what) {
  bool told = false;
  Patience patience{host.abort};
  while (!has_come(load_flag(flag), time)) {
    if (patience.is_over()) break;
    if (patience.spins == 0 && !told && blockIdx.x == 0) {
      *static_cast<volatile uint32_t*>(host.waits) = what;
      told = true;
    }
  }
  if (told) *static_cast<volatile uint32_t*>(host.waits) = 0;
}

__device__ __forceinline__ void copy_quads(float4* to, const float4* from, int64_t n) {
  const int64_t stride = int64_t{gridDim.x} * kThreads;
  const int64_t first = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  for (int64_t at = first; at < n; at += kQuadsAThread * stride) {
    float4 quads[kQuadsAThread];
#pragma unroll
    for (int k = 0; k < kQuadsAThread; ++k) {
      if (at + k * stride < n) quads[k] = __ldcg(from + at + k * stride);
    }
#pragma unroll
    for (int k = 0; k < kQuadsAThread; ++k) {
      if (at + k * stride < n) to[at + k * stride] = quads[k];
    }
  }
}

// The last block to get here counts the time up and raises the flag: all blocks have read the
// clock, and what they copied is there for whoever sees the flag.
__device__ __forceinline__ void raise(uint32_t* flag, uint32_t* clock, uint32_t* blocks,
                                      uint32_t time) {
  __syncthreads();
  if (threadIdx.x != 0) return;
  if (gridDim.x > 1) {
    __threadfence_system();
    if (atomicAdd(blocks, 1u) != gridDim.x - 1) return;
    __threadfence_system();
    __stcg(blocks, 0u);
  }
  __stcg(clock, time);
  store_flag(flag, time);
}

__global__ void __launch_bounds__(kThreads)
    push_kernel(const HopSender sender, const float4* x, int64_t n_quads) {
  const HopTo& to = sender.to[blockIdx.y];
  wait_for_previous();
  const uint32_t time = __ldcg(to.clock) + 1;
  if (threadIdx.x == 0) {
    wait_for_time(to.freed, time - kHopSlots, sender.host, kWaitsForSlot + blockIdx.y);
  }
  __syncthreads();
  float* slot = to.slots + time % kHopSlots * sender.slot_floats;
  copy_quads(reinterpret_cast<float4*>(slot), x, n_quads);
  raise(to.full, to.clock, to.blocks, time);
}

__global__ void __launch_bounds__(kThreads)
    take_kernel(const HopReceiver receiver, float4* x, int64_t n_quads) {
  wait_for_previous();
  const uint32_t time = __ldcg(receiver.clock) + 1;
  if (threadIdx.x == 0) wait_for_time(receiver.full, time, receiver.host, kWaitsForRows);
  __syncthreads();
  let_next_start();  // not before: what starts now would hold room while the rows are not there
  const float* slot = receiver.slots + time % kHopSlots * receiver.slot_floats;
  copy_quads(x, reinterpret_cast<const float4*>(slot), n_quads);
  raise(receiver.freed, receiver.clock, receiver.blocks, time);
}

int64_t quads_of(const float* x, int64_t rows, int64_t cols, int64_t stride, int64_t slot_floats) {
  CHECK(rows <= 1 || stride == cols);
  CHECK(cols % 4 == 0 && reinterpret_cast<uintptr_t>(x) % 16 == 0);
  CHECK_LE(rows * cols, slot_floats);
  return rows * cols / 4;
}

unsigned blocks_for(int64_t n_quads) {
  return static_cast<unsigned>(
      std::clamp<int64_t>(div_up(n_quads, int64_t{kThreads} * kQuadsAThread), 1, kMostBlocks));
}

uint32_t* word(std::byte* memory, int64_t at) { return reinterpret_cast<uint32_t*>(memory + at); }

int64_t sender_at(const HopLayout& layout, int link, int which) {
  return layout.senders + (int64_t{3} * link + which) * kHopWordBytes;
}

}  // namespace

HopTo hop_to(std::byte* own, std::byte* receivers, int link, int64_t max_rows, int64_t dim) {
  CHECK(link >= 0 && link < kMostHopReceivers);
  const HopLayout layout = hop_layout(true, max_rows, dim);
  HopTo to;
  to.slots = reinterpret_cast<float*>(receivers + layout.slots);
  to.full = word(receivers, layout.full);
  to.freed = word(own, sender_at(layout, link, 0));
  to.clock = word(own, sender_at(layout, link, 1));
  to.blocks = word(own, sender_at(layout, link, 2));
  return to;
}

HopReceiver hop_from(std::byte* own, std::byte* senders, int link, int64_t max_rows, int64_t dim,
                     const HopHost& host) {
  CHECK(link >= 0 && link < kMostHopReceivers);
  const HopLayout layout = hop_layout(true, max_rows, dim);
  HopReceiver from;
  from.slots = reinterpret_cast<const float*>(own + layout.slots);
  from.slot_floats = max_rows * dim;
  from.full = word(own, layout.full);
  from.freed = word(senders, sender_at(layout, link, 0));
  from.clock = word(own, layout.receiver_clock);
  from.blocks = word(own, layout.receiver_blocks);
  from.host = host;
  return from;
}

void hop_push(const Exec& exec, const HopSender& sender, View2D<const float> x) {
  CHECK(sender.n_links >= 1 && sender.n_links <= kMostHopReceivers);
  const int64_t n = quads_of(x.data, x.rows, x.cols, x.stride, sender.slot_floats);
  launch(exec, push_kernel, dim3(blocks_for(n), static_cast<unsigned>(sender.n_links)),
         dim3(kThreads), 0, sender, reinterpret_cast<const float4*>(x.data), n);
}

void hop_take(const Exec& exec, const HopReceiver& receiver, View2D<float> x) {
  const int64_t n = quads_of(x.data, x.rows, x.cols, x.stride, receiver.slot_floats);
  launch(exec, take_kernel, dim3(blocks_for(n)), dim3(kThreads), 0, receiver,
         reinterpret_cast<float4*>(x.data), n);
}

}  // namespace spillway::cuda

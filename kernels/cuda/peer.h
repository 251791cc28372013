// Sums over the GPUs of a host by kernels that write into each other's memory. Every rank has a
// mailbox that all ranks can reach (CUDA IPC between processes); a sum is one kernel on each rank's
// stream: push the own part to all, wait for theirs, add in rank order, go on with x and its norm.
//   Shapes: dim a multiple of 4 (32 with the int8 form), all views whole quads on 16 bytes.
//   Bits: equal on all ranks. Up to kPeerSmallRows rows travel as f32; more as bf16, every rank's
//   own included.
//   Invariants: every rank calls the same sequence of sums with the same shapes, each on one stream
//   that is in order. Then two slots are enough for a row of the mailbox: a rank pushes a row's
//   (e+2)-th time after its kernel of the (e+1)-th has ended, which had received what the peer
//   pushed in its own (e+1)-th, which began after the peer's e-th, the reader of that slot, had
//   ended. Times are counted by row, in the rank's own memory, by the kernels themselves: a
//   captured graph can be replayed.
//   A kernel whose peer never comes waits until *abort is not 0, then ends; x is undefined.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/core/int_math.h"
#include "kernels/core/tensor.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/ops.h"

namespace spillway::cuda {

inline constexpr int kMostPeers = 8;  // ranks of a group
inline constexpr int64_t kPeerSmallRows = 64;
inline constexpr int64_t kPeerRoundRows = 512;  // rows of a large sum that go in one launch
inline constexpr int64_t kMostPeerParts = 8;    // thread blocks that share a row

// Where things lie in a mailbox, in bytes from its start. `a..b` written by the peers:
//   lines     [2 slots][size][small rows][dim / 2] of 16 bytes: two values, each with its time
//   halves    [2 slots][size][round rows][dim] bf16
//   flags     [2 slots][size][round rows] times of the rows in halves
// and by the rank itself:
//   small_times [small rows][kMostPeerParts], round_times [round rows]
struct PeerLayout {
  int64_t small_rows, round_rows;
  int64_t lines, halves, flags, small_times, round_times, bytes;
};
constexpr PeerLayout peer_layout(int size, int64_t max_rows, int64_t dim) {
  constexpr int64_t kApart = 256;
  PeerLayout out{};
  out.small_rows = max_rows < kPeerSmallRows ? max_rows : kPeerSmallRows;
  if (max_rows > kPeerSmallRows) {
    out.round_rows = max_rows < kPeerRoundRows ? max_rows : kPeerRoundRows;
  }
  out.halves = round_up(2 * size * out.small_rows * dim * 8, kApart);
  out.flags = out.halves + round_up(2 * size * out.round_rows * dim * 2, kApart);
  out.small_times = out.flags + round_up(2 * size * out.round_rows * 4, kApart);
  out.round_times = out.small_times + round_up(out.small_rows * kMostPeerParts * 4, kApart);
  out.bytes = out.round_times + round_up(out.round_rows * 4, kApart);
  return out;
}

// A group as one of its ranks sees it. Mailboxes have peer_layout(size, max_rows, dim).bytes and
// begin as zeros.
struct PeerGroup {
  int rank = 0;
  int size = 1;
  int64_t max_rows = 0;
  int64_t dim = 0;
  int parts = 1;  // thread blocks a row of a small sum: peer_parts(); constant for a mailbox's life
  std::byte* mailboxes[kMostPeers] = {};  // by rank, at this device's addresses
  const uint32_t* abort = nullptr;        // device address of pinned host memory
};

// The widest rows that peer_sum() can take on a device of this compute capability.
int64_t most_peer_dim(int major);
// Thread blocks that a row of a small sum is spread over.
int peer_parts(int major, int64_t dim);

// x (+)= sum over the ranks of partial, then as add_rms_norm. partial, x [n, dim]; without add they
// may be the same memory. The group's ranks may be streams of one process; their kernels must be
// able to run at the same time.
void peer_sum(const Exec& exec, const PeerGroup& group, View2D<const float> partial,
              View2D<float> x, bool add, const float* weight, float eps, unsigned forms,
              const Input& out);

}  // namespace spillway::cuda

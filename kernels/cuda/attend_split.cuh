// How the tokens of a step's one-row sequences are dealt to the blocks of attend_decode.cu, found
// on the device from the sequences themselves.
#pragma once

#include "kernels/cuda/attend_common.cuh"

namespace spillway::cuda {

// What a block works on.
struct Piece {
  int sequence;  // -1: nothing
  int split;
  int n_splits;
  int tiles_a_split;
  int first_slot;
};

struct TokenRange {
  int begin;  // first token seen
  int end;
};

__device__ __forceinline__ TokenRange seen_tokens(const AttendParams& a, const SequenceRows& s) {
  const int end = s.first_position + 1;
  return {a.window > 0 ? max(0, end - a.window) : 0, end};
}

__device__ __forceinline__ int count_tiles(const AttendParams& a, int sequence) {
  if (sequence >= a.n_sequences || a.sequences[sequence].n_rows != 1) return 0;
  const TokenRange seen = seen_tokens(a, a.sequences[sequence]);
  return (seen.end + kDecodeTile - 1) / kDecodeTile - seen.begin / kDecodeTile;
}

// Slots are shared evenly over all tiles of the one-row sequences, so that a long context beside
// short ones keeps the whole device busy. Every warp finds the same.
__device__ __forceinline__ Piece find_piece(const AttendParams& a, int slot) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  int total = 0;
  for (int base = 0; base < a.n_sequences; base += 32) total += count_tiles(a, base + lane);
  total = __reduce_add_sync(kWholeWarp, total);
  const int share = max(kLeastTiles, (total + a.slots - 1) / a.slots);
  int before = 0;
  for (int base = 0; base < a.n_sequences; base += 32) {
    const int n = (count_tiles(a, base + lane) + share - 1) / share;
    int through = n;
    for (int step = 1; step < 32; step *= 2) {
      const int other = __shfl_up_sync(kWholeWarp, through, step);
      if (lane >= step) through += other;
    }
    const unsigned after = __ballot_sync(kWholeWarp, before + through > slot);
    if (after != 0) {
      const int owner = __ffs(static_cast<int>(after)) - 1;
      const int n_splits = __shfl_sync(kWholeWarp, n, owner);
      const int first = before + __shfl_sync(kWholeWarp, through, owner) - n_splits;
      return {base + owner, slot - first, n_splits, share, first};
    }
    before += __shfl_sync(kWholeWarp, through, 31);
  }
  return {-1, 0, 0, 0, 0};
}

}  // namespace spillway::cuda

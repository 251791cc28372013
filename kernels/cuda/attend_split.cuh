// How the tokens of a step's one-row sequences are dealt to the blocks of attend_decode.cu, found
// on the device from the sequences themselves.
#pragma once

#include "kernels/cuda/attend_common.cuh"

namespace spillway::cuda {

// What a block works on.
struct Piece {
  int sequence;       // -1: nothing
  SequenceRows rows;  // the sequence
  int split;
  int n_splits;
  int tiles_a_split;
  int first_slot;
  // First of the sequence's counters, below a.slots: splits that fit in the tiles of the sequences
  // before. Sequences with several splits have different ones, for each has more than a split's
  // tiles; and those with more than kOneLevel as many as they have groups (attend_merge.cuh), for
  // these are an eighth of its splits.
  int counter;
};

struct TokenRange {
  int begin;  // first token seen
  int end;
};

__device__ __forceinline__ TokenRange seen_tokens(const AttendParams& a, const SequenceRows& s) {
  const int end = s.first_position + 1;
  return {a.window > 0 ? max(0, end - a.window) : 0, end};
}

__device__ __forceinline__ SequenceRows load_sequence(const AttendParams& a, int sequence) {
  if (sequence >= a.n_sequences) return {0, 0, 0, 0};
  const int4 s = __ldcg(reinterpret_cast<const int4*>(a.sequences) + sequence);
  return {s.x, s.y, s.z, s.w};
}

__device__ __forceinline__ unsigned count_tiles(const AttendParams& a, const SequenceRows& s) {
  if (s.n_rows != 1) return 0;
  const TokenRange seen = seen_tokens(a, s);
  return static_cast<unsigned>(seen.end + kDecodeTile - 1) / kDecodeTile -
         static_cast<unsigned>(seen.begin) / kDecodeTile;
}

// Tiles a split, of all tiles of the step.
__device__ __forceinline__ unsigned share_of(const AttendParams& a, unsigned tiles) {
  const auto slots = static_cast<unsigned>(a.slots);
  return max(static_cast<unsigned>(kLeastTiles), (tiles + slots - 1) / slots);
}

// For a step of one sequence: what find_piece() finds, without asking the other lanes.
__device__ __forceinline__ Piece find_only_piece(const AttendParams& a, int slot) {
  const SequenceRows s = load_sequence(a, 0);
  const unsigned tiles = count_tiles(a, s);
  const unsigned share = share_of(a, tiles);
  const auto n = static_cast<int>((tiles + share - 1) / share);
  return {slot < n ? 0 : -1, s, slot, n, static_cast<int>(share), 0, 0};
}

// Slots are shared evenly over all tiles of the one-row sequences, so that a long context beside
// short ones keeps the whole device busy. Every warp finds the same.
__device__ __forceinline__ Piece find_piece(const AttendParams& a, int slot) {
  if (a.n_sequences == 1) return find_only_piece(a, slot);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const SequenceRows own = load_sequence(a, lane);  // one load for up to 32 sequences
  unsigned total = count_tiles(a, own);
#pragma unroll 1
  for (int base = 32; base < a.n_sequences; base += 32) {
    total += count_tiles(a, load_sequence(a, base + lane));
  }
  const unsigned share = share_of(a, __reduce_add_sync(kWholeWarp, total));
  int slots_before = 0;
  unsigned tiles_before = 0;
#pragma unroll 1
  for (int base = 0; base < a.n_sequences; base += 32) {
    const SequenceRows s = base == 0 ? own : load_sequence(a, base + lane);
    const unsigned tiles = count_tiles(a, s);
    const auto n = static_cast<int>((tiles + share - 1) / share);
    int through = n;
    for (int step = 1; step < 32; step *= 2) {
      const int other = __shfl_up_sync(kWholeWarp, through, step);
      if (lane >= step) through += other;
    }
    const unsigned after = __ballot_sync(kWholeWarp, slots_before + through > slot);
    if (after != 0) {
      const int owner = __ffs(static_cast<int>(after)) - 1;
      const auto of_owner = [&](int x) { return __shfl_sync(kWholeWarp, x, owner); };
      const int n_splits = of_owner(n);
      const int first = slots_before + of_owner(through) - n_splits;
      tiles_before += __reduce_add_sync(kWholeWarp, lane < owner ? tiles : 0u);
      const SequenceRows rows{of_owner(s.first_row), 1, of_owner(s.first_position),
                              of_owner(s.first_page)};
      return {base + owner,
              rows,
              slot - first,
              n_splits,
              static_cast<int>(share),
              first,
              static_cast<int>(tiles_before / share)};
    }
    slots_before += __shfl_sync(kWholeWarp, through, 31);
    tiles_before += __reduce_add_sync(kWholeWarp, tiles);
  }
  return {-1, {0, 0, 0, 0}, 0, 0, 0, 0, 0};
}

}  // namespace spillway::cuda

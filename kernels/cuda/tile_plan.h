// How a product of tiles is shared out among blocks and warps: chosen by its shape. Called by the
// launchers of tile_strip.cuh.
#pragma once

#include "kernels/cuda/ops.h"

namespace spillway::cuda {

inline constexpr int kMostStripWarps = 16;   // of a block
inline constexpr int kMostSplit = 8;         // blocks of a cluster
inline constexpr int kMostRingBytes = 4096;  // of a warp, any type

// Pieces of 32 columns that a warp takes at once, of NT * 8 rows of input.
// To be measured: 4 or 8 pieces at 32 rows.
#ifndef SPILLWAY_UNIT4
#define SPILLWAY_UNIT4 8
#endif
constexpr int unit_pieces(int nt) { return nt == 8 ? 4 : nt == 4 ? SPILLWAY_UNIT4 : 8; }
// Of a unit of a row of the input in shared memory. 32 on top: the four rows that half a warp reads
// lie in different banks.
constexpr int strip_row_bytes(int nt) { return unit_pieces(nt) * 64 + 32; }

// Shared memory of a block: two units of the input for each part, scales and a ring of codes
// (ring_bytes) for each warp, or the sums at the end.
constexpr int64_t strip_shared_bytes(const TilePlan& plan, int nt, int subs, int ring_bytes) {
  const int64_t warps = plan.strips * plan.parts;
  const int64_t input = int64_t{2} * plan.parts * 8 * nt * strip_row_bytes(nt) +
                        warps * (unit_pieces(nt) * subs * 128 + ring_bytes);
  const int64_t sums = warps * 8 * nt * 33 * 4;
  return input > sums ? input : sums;
}

struct TileShapeOf {
  int n_strips;  // of 32 rows
  int n_pieces;  // of 32 columns
  int n;
  int nt;
  int subs;            // sub-blocks of a piece
  int ring_bytes;      // codes on their way to a warp
  int64_t most_bytes;  // shared memory that a block may have
};
// The plan that is likely the fastest: by what was measured, tile_plan.cc.
TilePlan tile_plan(const Exec& exec, const TileShapeOf& shape);

}  // namespace spillway::cuda

// How a product of tiles is shared out among blocks and warps: chosen by its shape. Called by the
// launchers of tile_strip.cuh.
#pragma once

#include "kernels/cuda/ops.h"

namespace spillway::cuda {

inline constexpr int kMostStripWarps = 16;  // of a block
inline constexpr int kMostSplit = 8;        // blocks of a cluster

// Pieces of 32 columns that a warp takes at once, of NT * 8 rows of input.
constexpr int unit_pieces(int nt) { return nt == 8 ? 4 : 8; }
// Of a piece of the input in shared memory. 64 on top: neighbours begin in other banks.
constexpr int strip_piece_bytes(int nt) { return 8 * nt * 64 + 64; }

// Shared memory of a block: the input and the scales, or the sums at the end.
constexpr int64_t strip_shared_bytes(const TilePlan& plan, int nt, int subs) {
  const int64_t warps = plan.strips * plan.parts;
  const int64_t input =
      int64_t{plan.stages} * plan.parts * unit_pieces(nt) * strip_piece_bytes(nt) +
      warps * unit_pieces(nt) * subs * 128;
  const int64_t sums = warps * 8 * nt * 33 * 4;
  return input > sums ? input : sums;
}

struct TileShapeOf {
  int n_strips;  // of 32 rows
  int n_pieces;  // of 32 columns
  int n;
  int nt;
  int subs;   // sub-blocks of a piece
  int ahead;  // pieces of weights on their way to a warp
};
// The plan that is likely the fastest: by what was measured, tile_plan.cc.
TilePlan tile_plan(const Exec& exec, const TileShapeOf& shape);

}  // namespace spillway::cuda

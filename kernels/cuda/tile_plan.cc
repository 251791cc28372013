// See tile_plan.h.
#include "kernels/cuda/tile_plan.h"

#include <algorithm>

#include "kernels/core/int_math.h"

namespace spillway::cuda {
namespace {

// Cycles of a multiprocessor that the slowest one spends, roughly: a guide to order plans by.
double cycles(const Exec& exec, const TileShapeOf& shape, const TilePlan& plan,
              int64_t most_bytes) {
  const int64_t shared = strip_shared_bytes(plan, shape.nt, shape.subs);
  const int64_t warps = plan.strips * plan.parts;
  const int64_t together = std::min<int64_t>(kMostStripWarps / warps, most_bytes / (shared + 1024));
  const int64_t n_units = div_up(shape.n_pieces, unit_pieces(shape.nt));
  const int64_t of_warp = div_up(div_up(n_units, plan.split), plan.parts);  // units
  const int64_t blocks = div_up(shape.n_strips, plan.strips) * plan.split * div_up(shape.n, 64);
  const int64_t waves = div_up(blocks, exec.multiprocessors * std::max<int64_t>(together, 1));
  const int64_t resident =
      std::min(std::max<int64_t>(together, 1), div_up(blocks, exec.multiprocessors));
  const double pieces = static_cast<double>(of_warp * unit_pieces(shape.nt));
  // A piece takes its instructions of a scheduler, which has a quarter of the warps; what a chain
  // of loads, conversions and products waits is hidden the better the more warps there are.
  const double issue = (70.0 + 14.0 * shape.nt) * static_cast<double>(resident * warps) / 4;
  const double chain = 150.0 + 10.0 * shape.nt;
  const double input = pieces * plan.parts * 64 * std::min(shape.n, 8 * shape.nt) *
                       static_cast<double>(resident) / 40;
  const double finish = 600.0 + (plan.split > 1 ? 1200.0 : 0.0);
  return static_cast<double>(waves) * (std::max(pieces * (issue + chain), input) + finish);
}

}  // namespace

TilePlan tile_plan(const Exec& exec, const TileShapeOf& shape) {
  const int64_t most_bytes = exec.major >= 9 ? 227 * 1024 : 99 * 1024;
  TilePlan best;
  double least = 0;
  for (int split = 1; split <= (exec.major >= 9 ? kMostSplit : 1); split *= 2) {
    for (int parts = 1; parts <= 8; parts *= 2) {
      for (int strips = 1; strips <= 8 && strips * parts <= kMostStripWarps; ++strips) {
        for (const int stages : {3, 2}) {
          const TilePlan plan{strips, parts, split, stages};
          if (strip_shared_bytes(plan, shape.nt, shape.subs) > most_bytes) continue;
          const double guess = cycles(exec, shape, plan, most_bytes);
          if (least == 0 || guess < least) {
            least = guess;
            best = plan;
          }
        }
      }
    }
  }
  return best;
}

}  // namespace spillway::cuda

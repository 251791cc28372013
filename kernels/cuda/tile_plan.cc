// See tile_plan.h.
#include "kernels/cuda/tile_plan.h"

#include <algorithm>

#include "kernels/core/int_math.h"

namespace spillway::cuda {
namespace {

// Plans that won somewhere among all of 4 to 16 warps. Measured: NVIDIA H100 80GB HBM3, 2026-11-26,
// kernels_cuda_tile_bench, the products of an 8B in Q4_K, Q6_K and Q8_0 with 9, 16, 32 and 64 rows.
constexpr TilePlan kPlans[] = {{4, 1, 1, 2}, {8, 1, 1, 2}, {4, 2, 1, 2}, {1, 8, 1, 2}, {2, 8, 1, 2},
                               {2, 4, 1, 2}, {2, 8, 2, 2}, {2, 6, 2, 2}, {3, 4, 2, 2}, {4, 4, 2, 2},
                               {1, 8, 2, 2}, {2, 4, 4, 2}, {3, 5, 8, 2}, {5, 3, 4, 3}, {4, 1, 8, 2},
                               {5, 1, 8, 2}, {6, 1, 8, 2}, {8, 1, 8, 2}};

// Clusters that have a place at once where a multiprocessor takes one block: fewer than would fill
// the device, since a cluster stays within a group of 16 or 18 multiprocessors.
int64_t cluster_places(int64_t multiprocessors, int split) {
  return std::max<int64_t>(multiprocessors * (100 - (split == 1 ? 0 : split + 1)) / 100 / split, 1);
}

// What the busiest multiprocessor does, in arbitrary units. Its numbers are fitted to what was
// measured (see above): the plan of least cost is within 5 % of the best in each of the 84 cases.
double cost(const Exec& exec, const TileShapeOf& shape, const TilePlan& plan, int64_t most_bytes) {
  const int64_t shared = strip_shared_bytes(plan, shape.nt, shape.subs);
  const int64_t warps = plan.strips * plan.parts;
  const int64_t resident =
      std::max<int64_t>(std::min(kMostStripWarps / warps, most_bytes / (shared + 1024)), 1);
  const int64_t units =
      div_up(div_up(div_up(shape.n_pieces, unit_pieces(shape.nt)), plan.split), plan.parts);
  const int64_t clusters =
      div_up(shape.n_strips, plan.strips) * div_up(shape.n, int64_t{8} * shape.nt);
  const double layers = static_cast<double>(clusters) /
                        static_cast<double>(cluster_places(exec.multiprocessors, plan.split));
  int64_t blocks = div_up(clusters, cluster_places(exec.multiprocessors, plan.split));
  // Clusters pile up where they find a place before they spread.
  if (plan.split > 1 && blocks > 1) blocks = std::max(blocks, resident);
  // A piece is a chain of waits for each warp, hidden the better the more pieces are on their way,
  // and instructions of all warps and a share of the input for each part.
  const double chain = 14 * (shape.ahead <= 2 ? 2.0 : 1.0) * (shape.nt == 8 ? 0.72 : 1.0);
  const auto of_blocks = [&](int64_t n) {
    return static_cast<double>(units * unit_pieces(shape.nt)) *
           (chain + static_cast<double>(n * warps) +
            0.41 * static_cast<double>(n * plan.parts * shape.nt));
  };
  const double rounds = layers / static_cast<double>(resident);
  const double pieces =
      blocks <= resident ? of_blocks(blocks) : (rounds + 0.26) * of_blocks(resident);
  return pieces + (plan.split > 1 ? 200 : 0) + 17 * plan.parts * std::max(rounds, 1.0) +
         0.22 * static_cast<double>(blocks * warps * shape.nt);
}

}  // namespace

TilePlan tile_plan(const Exec& exec, const TileShapeOf& shape) {
  const int64_t most_bytes = exec.major >= 9 ? 227 * 1024 : 99 * 1024;
  TilePlan best;
  double least = 0;
  for (const TilePlan& plan : kPlans) {
    if (plan.split > 1 && exec.major < 9) continue;
    // Enough strips for every multiprocessor: no reason to share columns.
    if (plan.split > 1 && div_up(shape.n_strips, plan.strips) >
                              4 * cluster_places(exec.multiprocessors, plan.split)) {
      continue;
    }
    if (strip_shared_bytes(plan, shape.nt, shape.subs) > most_bytes) continue;
    const double of_plan = cost(exec, shape, plan, most_bytes);
    if (least == 0 || of_plan < least) {
      least = of_plan;
      best = plan;
    }
  }
  return best;
}

}  // namespace spillway::cuda

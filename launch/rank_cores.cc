// See rank_cores.h.
#include "launch/rank_cores.h"

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "parallel/numa.h"
#include "parallel/probe.h"

namespace spillway {
namespace {

// What a rank that may not run on every node says: mpirun or the user has chosen its cores.
constexpr int kBound = -2;

bool may_run_everywhere(const std::vector<NumaNode>& nodes) {
  return std::all_of(nodes.begin(), nodes.end(),
                     [](const NumaNode& node) { return !allowed_cpus_of(node).empty(); });
}

}  // namespace

int settle_cores(World& world, int gpu_node) {
  const int share = cores_of_rank(world.local_size);
  const std::vector<NumaNode> nodes = read_numa_nodes();
  const int mine = may_run_everywhere(nodes) ? gpu_node : kBound;
  const std::vector<std::string> all = gather_texts(world, std::to_string(mine));
  std::vector<int> gpu_nodes;  // by local rank
  for (size_t rank = 0; rank < all.size(); ++rank) {
    if (world.hosts[rank] != world.hosts[static_cast<size_t>(world.rank)]) continue;
    gpu_nodes.push_back(std::atoi(all[rank].c_str()));
    if (gpu_nodes.back() == kBound) return share;
  }
  const std::vector<int> dealt = deal_numa_nodes(nodes, gpu_nodes);
  if (dealt.empty()) return share;
  const int node = dealt[static_cast<size_t>(world.local_rank)];
  const std::vector<int> cpus = allowed_cpus_of(nodes[static_cast<size_t>(node)]);
  if (!keep_to_cpus(cpus)) return share;
  const auto here = std::count(dealt.begin(), dealt.end(), node);
  return cores_of_numa_rank(static_cast<int>(cpus.size()), static_cast<int>(here),
                            world.local_size);
}

}  // namespace spillway

// See mesh.h.
#include "parallel/mesh.h"

#include <utility>

#include "kernels/core/check.h"

namespace spillway {
namespace {

// Rank j of a stage hears from rank j mod (the previous stage's degree): every receiver has one
// sender, and the senders' work differs by a message at most.
void link_stages(const Plan& plan, const RankPart& part, Mesh& mesh) {
  const auto index = static_cast<size_t>(part.tp_index);
  if (part.stage > 0) {
    const std::vector<int>& before = plan.stages[part.stage - 1].ranks;
    mesh.receives_from = before[index % before.size()];
  }
  if (part.stage < plan.last_stage()) {
    const std::vector<int>& here = plan.stages[part.stage].ranks;
    const std::vector<int>& after = plan.stages[part.stage + 1].ranks;
    for (size_t j = index; j < after.size(); j += here.size()) mesh.sends_to.push_back(after[j]);
  }
}

}  // namespace

Mesh build_mesh(const Plan& plan, std::unique_ptr<Communicator> world) {
  CHECK(world != nullptr);
  CHECK_GE(world->size(), plan.n_ranks());
  Mesh mesh;
  mesh.rank = world->rank();
  mesh.stage = -1;
  int key = 0;
  if (mesh.rank < plan.n_ranks()) {
    const RankPart& part = plan.parts[mesh.rank];
    CHECK_EQ(part.rank, mesh.rank);
    mesh.stage = part.stage;
    key = part.tp_index;
    link_stages(plan, part, mesh);
  }
  mesh.tp = world->split(mesh.stage, key);
  if (mesh.tp != nullptr) {
    CHECK_EQ(mesh.tp->rank(), key);
    CHECK_EQ(mesh.tp->size(), static_cast<int>(plan.stages[mesh.stage].ranks.size()));
  }
  mesh.world = std::move(world);
  return mesh;
}

}  // namespace spillway

// See follower.h.
#include "runtime/engine/follower.h"

#include "runtime/engine/step_wire.h"

namespace spillway {

void follow(const Plan& plan, Pipeline* pipeline, Mesh& mesh, Watchdog& watchdog,
            Metrics& metrics) {
  StepWire wire(plan);
  StepBatch batch(plan.limits, plan.kv.n_pages);
  for (;;) {
    wire.receive(batch, *mesh.world);
    if (batch.kind == StepKind::kStop) return;
    metrics.step = batch.number;
    const WatchedStep watched(watchdog, batch.number, step_allowance(plan, batch));
    if (pipeline != nullptr) pipeline->forward(batch, nullptr);
  }
}

}  // namespace spillway

// See follower.h.
#include "runtime/engine/follower.h"

#include "runtime/engine/step_wire.h"

namespace spillway {

void follow(const Plan& plan, Pipeline* pipeline, Mesh& mesh, Watchdog& watchdog,
            Metrics& metrics) {
  StepWire wire(plan, *mesh.world);
  StepAllowance allowance(plan);
  StepBatch batch(plan.limits, plan.kv.n_pages);
  for (;;) {
    wire.receive(batch);
    if (batch.kind == StepKind::kStop) break;
    metrics.step = batch.number;
    const WatchedStep watched(watchdog, batch.number, allowance.next(batch));
    if (pipeline != nullptr) pipeline->start(batch);
  }
  if (pipeline != nullptr) pipeline->finish();
}

}  // namespace spillway

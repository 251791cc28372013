// The loop of every rank but the front: receive a step, run this rank's legs, until told to stop.
#pragma once

#include "parallel/mesh.h"
#include "parallel/plan.h"
#include "parallel/watchdog.h"
#include "runtime/engine/metrics.h"
#include "runtime/stage/pipeline.h"

namespace spillway {

// Returns after the front's stop. Throws Error when the front or a peer is gone. A rank that the
// plan does not use passes nullptr: it hears the steps and does nothing.
void follow(const Plan& plan, Pipeline* pipeline, Mesh& mesh, Watchdog& watchdog, Metrics& metrics);

}  // namespace spillway

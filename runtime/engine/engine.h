// Engine: the front's loop: scheduler -> broadcast -> pipeline -> sampler -> sinks. One for `run`
// and for serving alike.
//   Thread: submit() and Request::cancelled from any thread; run_* from the main thread only.
//   Owns scheduler, step batch, wire. Plan, pipeline, mesh, watchdog and metrics are the caller's.
//   Errors: what the pipeline throws, and NotFinite for a step whose logits are,
//   ends every open request with kError and is thrown on.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>

#include "kernels/core/error.h"
#include "parallel/mesh.h"
#include "parallel/plan.h"
#include "parallel/watchdog.h"
#include "runtime/engine/metrics.h"
#include "runtime/engine/request.h"
#include "runtime/engine/scheduler.h"
#include "runtime/engine/step_wire.h"
#include "runtime/stage/pipeline.h"

namespace spillway {

// A step's best logit is NaN or infinite: the weights are damaged, and launch looks for where.
class NotFinite : public Error {
 public:
  using Error::Error;
};

class Engine {
 public:
  static constexpr int64_t kQueueCapacity = 64;

  Engine(const Plan& plan, const ModelSpec& model, Pipeline& pipeline, Mesh& mesh,
         Watchdog& watchdog, Metrics& metrics);

  // "" when taken, else the reason why not; the sink hears nothing then.
  std::string submit(Request request);
  // Runs steps until nothing is left to do.
  void run_until_idle();
  // One step; false when there was nothing to do.
  bool step();
  // A step made by the caller (verify, bench): broadcast, forward, result. No sampling.
  const StepResult& forward(StepBatch& batch);
  // Tells the followers to return. Call once, last.
  void stop();

 private:
  void count(const StepBatch& batch, int64_t drawn, std::chrono::nanoseconds took, bool prefill);

  const Plan& plan_;
  Pipeline& pipeline_;
  Mesh& mesh_;
  Watchdog& watchdog_;
  Metrics& metrics_;
  std::mutex mutex_;  // guards scheduler_ between submit() and the loop
  Scheduler scheduler_;
  StepWire wire_;
  StepBatch batch_;
  StepResult result_;
  std::chrono::steady_clock::time_point started_;
};

}  // namespace spillway

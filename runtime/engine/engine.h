// Engine: the front's loop: scheduler -> wire -> pipeline -> sampler -> sinks. One for `run` and
// for serving alike.
//   With S pipeline stages up to S steps are in flight, a step that was started and not yet
//   collected each, so that every stage has one to compute; with one stage it is one step after the
//   other. Before step j + S is started step j is collected, logits or not: pipeline.h says why
//   nobody then waits for himself.
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
#include <vector>

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
  // Starts steps while it may, then ends the oldest in flight; false when there was none.
  bool step();

  // Steps made by the caller (verify, bench), without sampling, while there are no requests.
  // start() gives a step to the stages and returns; collect() ends the oldest one in flight. The
  // result is valid until the next call. forward() is both, with nothing else in flight.
  const StepResult& forward(const StepBatch& batch);
  void start(const StepBatch& batch);
  const StepResult& collect();
  int64_t in_flight() const { return in_flight_; }
  int64_t most_in_flight() const { return static_cast<int64_t>(flights_.size()); }

  // Whether no step failed half way: the ranks wait for the same thing, and stop() can be called.
  bool sound() const { return sound_; }
  // Waits for the steps in flight, drops their results, and tells the followers to return. Call
  // once, last.
  void stop();

 private:
  struct Flight {
    StepBatch batch;
    std::chrono::steady_clock::time_point begun;
    int64_t prompt_tokens_before = 0;  // of all requests, when the step was made and before
    int64_t prompt_tokens = 0;
  };

  Flight& free_flight();
  void start(Flight& flight);  // the free one
  bool start_scheduled();
  void collect_scheduled();
  // The watchdog looks at the oldest step in flight; its time starts anew.
  void watch();
  void count(const Flight& flight, int64_t drawn);

  Pipeline& pipeline_;
  Watchdog& watchdog_;
  Metrics& metrics_;
  std::mutex mutex_;  // guards scheduler_ between submit() and the loop
  Scheduler scheduler_;
  StepWire wire_;
  std::vector<Flight> flights_;  // used in turn
  int64_t oldest_ = 0;
  int64_t in_flight_ = 0;
  bool sound_ = true;
  StepAllowance allowance_;
  std::chrono::milliseconds granted_{0};  // to the step started last
  StepResult result_;
  std::chrono::steady_clock::time_point started_;
  std::chrono::steady_clock::time_point counted_;  // up to here time is in the metrics
};

}  // namespace spillway

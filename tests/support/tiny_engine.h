// A TinyJob's engine and followers, ranks as threads: what the tests of the engine share.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <limits>
#include <string>

#include "runtime/engine/engine.h"
#include "runtime/engine/follower.h"
#include "tests/support/tiny_job.h"

namespace spillway::testing {

inline TinyOptions tiny() {
  TinyOptions options;
  options.n_layers = 3;
  options.heads = 6;
  options.kv_heads = 3;
  options.head_dim = 32;
  options.type = QuantType::kQ8_0;
  return options;
}

inline PlanRequest request_of(const std::string& split) {
  PlanRequest request = tiny_request(parse_split(split));
  request.limits.max_rows = 8;
  request.limits.max_logit_rows = 4;
  request.limits.max_wanted = 70;
  request.limits.max_candidates = 80;
  return request;
}

inline Watchdog quiet_watchdog() {
  return {std::chrono::minutes(5), [] { return std::string(); }, [](const std::string&) {}};
}

// Runs `front` on rank 0 with an engine, followers elsewhere; stops them at the end.
inline void run_engine(const TinyJob& job, const Plan& plan,
                       const std::function<void(Engine&, Metrics&)>& front) {
  job.run(plan, [&](TinyRank& rank) {
    Watchdog watchdog = quiet_watchdog();
    Metrics metrics;
    if (!rank.mesh.front()) {
      follow(plan, &rank.pipeline, rank.mesh, watchdog, metrics);
      EXPECT_GE(metrics.step, 0);
      return;
    }
    Engine engine(plan, job.spec, rank.pipeline, rank.mesh, watchdog, metrics);
    front(engine, metrics);
    engine.stop();
  });
}
inline void run_engine(const TinyJob& job, const std::string& split,
                       const std::function<void(Engine&, Metrics&)>& front) {
  run_engine(job, job.plan(request_of(split)), front);
}

inline SamplingParams warm(uint64_t seed) {
  SamplingParams params;
  params.temperature = 1.3F;
  params.top_k = 20;
  params.repeat_penalty = 1.2F;
  params.frequency_penalty = 0.3F;
  params.logit_bias = {{3, 2.0F}, {70, -std::numeric_limits<float>::infinity()}};
  params.seed = seed;
  return params;
}

}  // namespace spillway::testing

// See engine.h.
#include "runtime/engine/engine.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <limits>
#include <utility>

namespace spillway {
namespace {

// Candidates come best first and NaN last, so the first one speaks for the row.
bool has_a_best(const RowResult& row) {
  if (!row.candidates.empty()) return std::isfinite(row.candidates.front().logit);
  float best = -std::numeric_limits<float>::infinity();
  for (const float logit : row.whole) best = std::max(best, logit);  // keeps best beside a NaN
  return std::isfinite(best);
}

// A row whose best logit is NaN or infinite says nothing about the next token: drawing from it
// would print garbage as if it were an answer.
void check_numbers(const StepBatch& batch, const StepResult& result) {
  for (int64_t i = 0; i < result.n_rows; ++i) {
    if (has_a_best(result.rows[static_cast<size_t>(i)])) continue;
    throw NotFinite("the model computes NaN or infinite logits: no token can be chosen after row " +
                        std::to_string(batch.logit_rows[static_cast<size_t>(i)].row),
                    "step " + std::to_string(batch.number),
                    "weights that are not finite, such as NaN scales in quantised blocks, are the "
                    "usual cause; download or convert the model again");
  }
}

}  // namespace

Engine::Engine(const Plan& plan, const ModelSpec& model, Pipeline& pipeline, Mesh& mesh,
               Watchdog& watchdog, Metrics& metrics)
    : plan_(plan),
      pipeline_(pipeline),
      mesh_(mesh),
      watchdog_(watchdog),
      metrics_(metrics),
      scheduler_(plan, model.vocab_size, kQueueCapacity),
      wire_(plan),
      batch_(plan.limits, plan.kv.n_pages),
      result_(plan.limits, static_cast<int64_t>(plan.stages.back().ranks.size())),
      started_(std::chrono::steady_clock::now()) {}

std::string Engine::submit(Request request) {
  const std::lock_guard lock(mutex_);
  return scheduler_.submit(std::move(request));
}

void Engine::run_until_idle() {
  while (step()) {
  }
}

const StepResult& Engine::forward(StepBatch& batch) {
  metrics_.step = batch.number;
  const WatchedStep watched(watchdog_, batch.number, step_allowance(plan_, batch));
  wire_.send(batch, *mesh_.world);
  pipeline_.forward(batch, &result_);
  check_numbers(batch, result_);
  return result_;
}

bool Engine::step() {
  try {
    int64_t prompt_before = 0;
    {
      const std::lock_guard lock(mutex_);
      prompt_before = scheduler_.prompt_tokens_done();
      if (!scheduler_.next(batch_)) return false;
    }
    const auto begin = std::chrono::steady_clock::now();
    forward(batch_);
    const std::lock_guard lock(mutex_);
    const int64_t new_before = scheduler_.new_tokens_done();
    scheduler_.commit(batch_, result_);
    count(batch_, scheduler_.new_tokens_done() - new_before,
          std::chrono::steady_clock::now() - begin,
          scheduler_.prompt_tokens_done() > prompt_before);
    metrics_.prompt_tokens = scheduler_.prompt_tokens_done();
    metrics_.new_tokens = scheduler_.new_tokens_done();
    return true;
  } catch (const std::exception& error) {
    const std::lock_guard lock(mutex_);
    scheduler_.finish_all(FinishReason::kError, error.what());
    throw;
  }
}

void Engine::count(const StepBatch& batch, int64_t drawn, std::chrono::nanoseconds took,
                   bool prefill) {
  if (drawn > 0 && metrics_.first_token_ns == 0) {
    metrics_.first_token_ns = (std::chrono::steady_clock::now() - started_).count();
  }
  if (prefill) {
    metrics_.prefill_ns += took.count();
  } else {
    metrics_.decode_ns += took.count();
    metrics_.decode_tokens += drawn;
  }
}

void Engine::stop() {
  batch_.clear();
  batch_.kind = StepKind::kStop;
  wire_.send(batch_, *mesh_.world);
}

}  // namespace spillway

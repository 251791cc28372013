// See engine.h.
#include "runtime/engine/engine.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <limits>
#include <utility>

#include "kernels/core/check.h"

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
    : pipeline_(pipeline),
      watchdog_(watchdog),
      metrics_(metrics),
      scheduler_(plan, model.vocab_size, kQueueCapacity),
      wire_(plan, *mesh.world),
      allowance_(plan),
      result_(plan.limits, static_cast<int64_t>(plan.stages.back().ranks.size())),
      started_(std::chrono::steady_clock::now()),
      counted_(started_) {
  flights_.reserve(plan.stages.size());
  for (size_t i = 0; i < plan.stages.size(); ++i) {
    flights_.push_back({StepBatch(plan.limits, plan.kv.n_pages), {}, 0, 0});
  }
}

std::string Engine::submit(Request request) {
  const std::lock_guard lock(mutex_);
  return scheduler_.submit(std::move(request));
}

void Engine::run_until_idle() {
  while (step()) {
  }
}

void Engine::watch() {
  if (in_flight_ == 0) return watchdog_.end();
  watchdog_.begin(flights_[static_cast<size_t>(oldest_)].batch.number, granted_);
}

Engine::Flight& Engine::free_flight() {
  CHECK_LT(in_flight_, most_in_flight());
  return flights_[static_cast<size_t>((oldest_ + in_flight_) % most_in_flight())];
}

void Engine::start(Flight& flight) {
  metrics_.step = flight.batch.number;
  granted_ = allowance_.next(flight.batch);
  flight.begun = std::chrono::steady_clock::now();
  ++in_flight_;
  watch();
  try {
    wire_.send(flight.batch);
    pipeline_.start(flight.batch);
  } catch (...) {
    sound_ = false;
    --in_flight_;  // there is nothing of it to collect
    watchdog_.end();
    throw;
  }
}

const StepResult& Engine::collect() {
  CHECK_GT(in_flight_, 0);
  bool came = false;
  try {
    const Flight& flight = flights_[static_cast<size_t>(oldest_)];
    pipeline_.collect(flight.batch, result_);
    came = true;
    oldest_ = (oldest_ + 1) % most_in_flight();
    --in_flight_;
    watch();
    check_numbers(flight.batch, result_);
    return result_;
  } catch (...) {
    sound_ = sound_ && came;
    watchdog_.end();
    throw;
  }
}

void Engine::start(const StepBatch& batch) {
  Flight& flight = free_flight();
  flight.batch = batch;
  start(flight);
}

const StepResult& Engine::forward(const StepBatch& batch) {
  CHECK_EQ(in_flight_, 0);
  start(batch);
  return collect();
}

bool Engine::start_scheduled() {
  Flight& flight = free_flight();
  {
    const std::lock_guard lock(mutex_);
    flight.prompt_tokens_before = scheduler_.prompt_tokens_done();
    if (!scheduler_.next(flight.batch)) return false;
    flight.prompt_tokens = scheduler_.prompt_tokens_done();
  }
  start(flight);
  return true;
}

void Engine::collect_scheduled() {
  const Flight& flight = flights_[static_cast<size_t>(oldest_)];
  collect();
  const std::lock_guard lock(mutex_);
  const int64_t new_before = scheduler_.new_tokens_done();
  scheduler_.commit(flight.batch, result_);
  count(flight, scheduler_.new_tokens_done() - new_before);
}

bool Engine::step() {
  try {
    while (in_flight_ < most_in_flight() && start_scheduled()) {
    }
    if (in_flight_ == 0) return false;
    collect_scheduled();
    return true;
  } catch (const std::exception& error) {
    watchdog_.end();  // also of steps that are still in flight
    const std::lock_guard lock(mutex_);
    scheduler_.finish_all(FinishReason::kError, error.what());
    throw;
  }
}

void Engine::count(const Flight& flight, int64_t drawn) {
  const auto now = std::chrono::steady_clock::now();
  if (drawn > 0 && metrics_.first_token_ns == 0) {
    metrics_.first_token_ns = (now - started_).count();
  }
  // Steps overlap: of each the time since the one before it was counted.
  const std::chrono::nanoseconds took = now - std::max(flight.begun, counted_);
  counted_ = now;
  if (flight.prompt_tokens > flight.prompt_tokens_before) {
    metrics_.prefill_ns += took.count();
  } else {
    metrics_.decode_ns += took.count();
    metrics_.decode_tokens += drawn;
  }
  metrics_.prompt_tokens = flight.prompt_tokens;
  metrics_.new_tokens = scheduler_.new_tokens_done();
}

void Engine::stop() {
  for (; in_flight_ > 0; --in_flight_) {
    pipeline_.collect(flights_[static_cast<size_t>(oldest_)].batch, result_);
    oldest_ = (oldest_ + 1) % most_in_flight();
  }
  StepBatch& batch = free_flight().batch;
  batch.clear();
  batch.kind = StepKind::kStop;
  wire_.send(batch);
  wire_.finish();
  pipeline_.finish();
}

}  // namespace spillway

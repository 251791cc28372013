// Scheduler with several steps in flight: what may be in which, and that the texts stay the same.
#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <memory>
#include <random>
#include <utility>

#include "runtime/engine/scheduler.h"
#include "tests/support/arrivals.h"
#include "tests/support/paged_echo.h"

namespace spillway::testing {
namespace {

using Rows = std::vector<int32_t>;

// A pipeline of S stages over PagedEcho, which runs a step when it is made: any later step finds
// the pages as the stages, which run the steps in order, would.
struct FlightBench {
  FlightBench(Plan p, int64_t stages, int64_t queue = 16) : plan(std::move(p)) {
    plan.stages.resize(static_cast<size_t>(stages));
    scheduler = std::make_unique<Scheduler>(plan, kEchoVocab, queue);
    echo = std::make_unique<PagedEcho>(plan);
  }

  // The rows of each sequence in the step that was made; empty: none was.
  std::vector<int32_t> start() {
    flights.emplace_back(StepBatch(plan.limits, plan.kv.n_pages), StepResult(plan.limits, 1));
    auto& [batch, result] = flights.back();
    if (!scheduler->next(batch)) {
      flights.pop_back();
      return {};
    }
    EXPECT_EQ(batch.number, steps++);
    echo->forward(batch, result);
    std::vector<int32_t> rows;
    for (const StepSequence& sequence : batch.sequences) rows.push_back(sequence.n_rows);
    return rows;
  }
  void collect() {
    const auto& [batch, result] = flights.front();
    scheduler->commit(batch, result);
    flights.pop_front();
  }
  // As the engine: starts what may be in flight, then ends the oldest.
  bool step() {
    while (flights.size() < plan.stages.size() && !start().empty()) {
    }
    if (flights.empty()) return false;
    collect();
    return true;
  }
  void drain(int most = 10000) {
    while (step()) ASSERT_GT(--most, 0) << "does not come to an end";
    EXPECT_TRUE(scheduler->idle());
  }

  Plan plan;
  std::unique_ptr<Scheduler> scheduler;
  std::unique_ptr<PagedEcho> echo;
  std::deque<std::pair<StepBatch, StepResult>> flights;
  int64_t steps = 0;
};

TEST(SchedulerFlightTest, DecodingSequencesAreDividedIntoGroups) {
  FlightBench bench(plan_of(64, 7, 64, 100), 3);
  EchoSink sinks[7];
  for (int32_t i = 0; i < 7; ++i) {
    ASSERT_EQ(bench.scheduler->submit(echo_request(sinks[i], prompt_of(4, 10 * i), 9)), "");
  }
  EXPECT_EQ(bench.start(), Rows(7, 4));  // all prompts fit one step
  EXPECT_EQ(bench.start(), Rows());      // and nobody knows how to go on
  bench.collect();
  for (int round = 0; round < 3; ++round) {
    SCOPED_TRACE("round " + std::to_string(round));
    EXPECT_EQ(bench.start(), Rows(3, 1));
    EXPECT_EQ(bench.start(), Rows(3, 1));
    EXPECT_EQ(bench.start(), Rows(1, 1));
    EXPECT_EQ(bench.start(), Rows());
    for (int i = 0; i < 3; ++i) bench.collect();
  }
  bench.drain();
  for (int32_t i = 0; i < 7; ++i) EXPECT_EQ(sinks[i].tokens, echo_text(prompt_of(4, 10 * i), 9));
}

TEST(SchedulerFlightTest, ChunksOfAPromptWaitForNothing) {
  FlightBench bench(plan_of(8, 2, 64), 4);
  EchoSink sink;
  ASSERT_EQ(bench.scheduler->submit(echo_request(sink, prompt_of(27), 3)), "");
  for (const int32_t rows : {8, 8, 8, 3}) EXPECT_EQ(bench.start(), Rows{rows});
  EXPECT_EQ(bench.start(), Rows());  // the first token is still to come
  for (int i = 0; i < 3; ++i) bench.collect();
  EXPECT_EQ(bench.start(), Rows());
  EXPECT_TRUE(sink.tokens.empty());
  bench.collect();
  EXPECT_EQ(bench.start(), Rows{1});
  bench.drain();
  EXPECT_EQ(sink.tokens, echo_text(prompt_of(27), 3));
  EXPECT_EQ(bench.scheduler->prompt_tokens_done(), 27);
}

TEST(SchedulerFlightTest, NobodyStarvesWhenStepsAreShort) {
  // Five decode; a step takes two rows at most, or one with logits: whoever waited longest goes.
  for (const int64_t logit_rows : {1, 2}) {
    Plan plan = plan_of(2, 5, 64, 100);
    plan.limits.max_logit_rows = logit_rows;
    FlightBench bench(plan, 2);
    EchoSink sinks[5];
    for (int32_t i = 0; i < 5; ++i) {
      ASSERT_EQ(bench.scheduler->submit(echo_request(sinks[i], prompt_of(1, i), 20)), "");
    }
    for (int i = 0; i < 45; ++i) {
      ASSERT_TRUE(bench.step());
      size_t least = 20;
      size_t most = 0;
      for (const EchoSink& sink : sinks) {
        least = std::min(least, sink.tokens.size());
        most = std::max(most, sink.tokens.size());
      }
      EXPECT_LE(most - least, 1U) << "after " << i << " steps";
    }
    bench.drain();
    for (int32_t i = 0; i < 5; ++i) EXPECT_EQ(sinks[i].tokens, echo_text(prompt_of(1, i), 20));
  }
}

TEST(SchedulerFlightTest, ASequenceThatEndedIsNotInTheStepsThatComeBack) {
  FlightBench bench(plan_of(4, 1, 40, 10), 3);
  EchoSink gone, next;
  std::atomic<bool> cancelled{false};
  Request request = echo_request(gone, prompt_of(30), 3);
  request.cancelled = &cancelled;
  ASSERT_EQ(bench.scheduler->submit(std::move(request)), "");
  ASSERT_EQ(bench.scheduler->submit(echo_request(next, prompt_of(30, 100), 3)), "");
  EXPECT_EQ(bench.start(), Rows{4});
  EXPECT_EQ(bench.start(), Rows{4});
  cancelled = true;
  EXPECT_EQ(bench.start(), Rows{4});  // of the next one, in the same slot and pages
  EXPECT_EQ(gone.reason, FinishReason::kCancelled);
  bench.drain();
  EXPECT_TRUE(gone.tokens.empty());
  EXPECT_EQ(next.tokens, echo_text(prompt_of(30, 100), 3));

  // Cancelled while its token was still to come: the token is dropped, its slot already used again.
  EchoSink late, after;
  cancelled = false;
  Request short_one = echo_request(late, prompt_of(3), 5);
  short_one.cancelled = &cancelled;
  ASSERT_EQ(bench.scheduler->submit(std::move(short_one)), "");
  ASSERT_EQ(bench.scheduler->submit(echo_request(after, prompt_of(2, 70), 5)), "");
  EXPECT_EQ(bench.start(), Rows{3});
  cancelled = true;
  EXPECT_EQ(bench.start(), Rows{2});
  bench.collect();
  EXPECT_TRUE(late.tokens.empty());
  bench.drain();
  EXPECT_EQ(after.tokens, echo_text(prompt_of(2, 70), 5));
}

TEST(SchedulerFlightTest, FinishAllForgetsStepsInFlight) {
  FlightBench bench(plan_of(8, 2, 64), 2);
  EchoSink a, b, later;
  ASSERT_EQ(bench.scheduler->submit(echo_request(a, prompt_of(5), 9)), "");
  EXPECT_EQ(bench.start(), Rows{5});
  ASSERT_EQ(bench.scheduler->submit(echo_request(b, prompt_of(6), 9)), "");
  EXPECT_EQ(bench.start(), Rows{6});
  bench.scheduler->finish_all(FinishReason::kError, "rank 3 is gone");
  ASSERT_EQ(bench.scheduler->submit(echo_request(later, prompt_of(7, 7), 4)), "");
  bench.drain();
  for (const EchoSink* sink : {&a, &b}) {
    EXPECT_EQ(sink->reason, FinishReason::kError);
    EXPECT_TRUE(sink->tokens.empty());
  }
  EXPECT_EQ(later.tokens, echo_text(prompt_of(7, 7), 4));
}

TEST(SchedulerFlightTest, RandomArrivalsAllEndWithTheirOwnText) {
  for (uint32_t seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    const auto up_to = [&](int64_t n) { return static_cast<int64_t>(random()) % (n + 1); };
    const int64_t sequences = 1 + up_to(7);
    const int64_t context = 20 + up_to(60);
    Plan plan = plan_of(1 + up_to(20), sequences, context, div_up(context, 4) + up_to(80));
    plan.limits.max_logit_rows = 1 + up_to(sequences);
    FlightBench bench(plan, 2 + up_to(2), 1 + up_to(5));
    std::vector<std::unique_ptr<Arrival>> arrivals;
    for (int i = 0; i < 400; ++i) {
      if (random() % 3 == 0) {
        auto arrival = std::make_unique<Arrival>();
        arrival->prompt = prompt_of(1 + up_to(context - 2), static_cast<int32_t>(up_to(500)));
        arrival->most = up_to(30);
        if (random() % 4 == 0) arrival->sink.cancel_at = 1 + up_to(10);
        if (bench.scheduler->submit(echo_request(arrival->sink, arrival->prompt, arrival->most))
                .empty()) {
          arrivals.push_back(std::move(arrival));
        }
      }
      const bool busy = !bench.scheduler->idle();
      ASSERT_EQ(bench.step(), busy);
    }
    bench.drain();
    for (const auto& arrival : arrivals) expect_text_of(*arrival, context);
    EXPECT_GT(arrivals.size(), 5U);
  }
}

}  // namespace
}  // namespace spillway::testing

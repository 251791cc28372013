// Steps in flight over pipelines of two to four stages, ranks as threads. The fake communicator
// hands over nothing before it is received and ends a post only then, so an order of waits that can
// lock up does, and a buffer that is written too early is seen.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <random>
#include <thread>

#include "runtime/engine/engine.h"
#include "tests/support/paged_echo.h"
#include "tests/support/tiny_engine.h"

namespace spillway::testing {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

const char* const kPipelines[] = {"1+1", "1+1+1", "1+1+1+1", "1:1+1:1", "1:1+1+1", "1+1:1+1"};

TinyOptions four_layers() {
  TinyOptions options = tiny();
  options.n_layers = 4;
  return options;
}

// Eight sequences, chunks of eight rows.
Plan eight_sequences(const TinyJob& job, const std::string& split) {
  PlanRequest request = request_of(split);
  request.limits.max_sequences = 8;
  request.limits.max_logit_rows = 8;
  return job.plan(request);
}

// What a rank does with each step beside running it.
using Beside = std::function<void(const StepBatch&)>;

// As follow(), with something before each step.
void follow_beside(TinyRank& rank, const Beside& beside) {
  StepWire wire(rank.plan, *rank.mesh.world);
  StepBatch batch(rank.plan.limits, rank.plan.kv.n_pages);
  while (wire.receive(batch), batch.kind != StepKind::kStop) {
    beside(batch);
    rank.pipeline.start(batch);
  }
}

struct Case {
  std::vector<int32_t> prompt;
  int64_t most = 0;
  uint64_t seed = 0;
};

std::vector<Case> mixed_cases() {
  std::vector<Case> cases;
  for (uint32_t i = 0; i < 11; ++i) {
    cases.push_back({tiny_tokens(1 + 17 * i % 60, 80, i), 3 + 5 * i % 23, i});
  }
  return cases;
}

void submit(Engine& engine, const Case& c, EchoSink& sink) {
  Request request = echo_request(sink, c.prompt, c.most);
  request.sampling = warm(c.seed);
  if (c.seed % 3 == 0) request.sampling.temperature = 0;
  ASSERT_EQ(engine.submit(std::move(request)), "");
}

std::vector<std::vector<int32_t>> texts_alone(const TinyJob& job, const std::vector<Case>& cases) {
  std::vector<std::vector<int32_t>> texts;
  run_engine(job, eight_sequences(job, "1"), [&](Engine& engine, Metrics&) {
    EXPECT_EQ(engine.most_in_flight(), 1);
    for (const Case& c : cases) {
      EchoSink sink;
      submit(engine, c, sink);
      engine.run_until_idle();
      texts.push_back(sink.tokens);
    }
  });
  return texts;
}

TEST(EngineFlightTest, TheSameTextsAsOneAfterTheOther) {
  const TinyJob job(four_layers());
  const auto cases = mixed_cases();
  const auto expected = texts_alone(job, cases);
  for (const char* split : kPipelines) {
    SCOPED_TRACE(split);
    const Plan plan = eight_sequences(job, split);
    std::vector<EchoSink> sinks(cases.size());
    int64_t most = 0;
    run_engine(job, plan, [&](Engine& engine, Metrics& metrics) {
      const auto begin = Clock::now();
      EXPECT_EQ(engine.most_in_flight(), static_cast<int64_t>(plan.stages.size()));
      for (size_t i = 0; i < cases.size(); ++i) {
        submit(engine, cases[i], sinks[i]);
        if (i % 4 == 3) engine.step();  // some arrive while others run
        most = std::max(most, engine.in_flight());
      }
      while (engine.step()) most = std::max(most, engine.in_flight());
      EXPECT_EQ(engine.in_flight(), 0);
      // No time twice: steps that overlap share what passed.
      const std::chrono::nanoseconds passed = Clock::now() - begin;
      EXPECT_GT(metrics.decode_ns, 0);
      EXPECT_GT(metrics.prefill_ns, 0);
      EXPECT_LE(metrics.decode_ns + metrics.prefill_ns, passed.count());
      int64_t prompts = 0;
      int64_t texts = 0;
      for (const Case& c : cases) {
        prompts += static_cast<int64_t>(c.prompt.size());
        texts += c.most;
      }
      EXPECT_EQ(metrics.prompt_tokens, prompts);
      EXPECT_EQ(metrics.new_tokens, texts);
    });
    // step() has just ended one of the steps.
    EXPECT_EQ(most, static_cast<int64_t>(plan.stages.size()) - 1);
    for (size_t i = 0; i < cases.size(); ++i) EXPECT_EQ(sinks[i].tokens, expected[i]) << i;
  }
}

TEST(EngineFlightTest, RanksThatAreLateNowAndThen) {
  const TinyJob job(four_layers());
  const auto cases = mixed_cases();
  const auto expected = texts_alone(job, cases);
  for (const char* split : kPipelines) {
    SCOPED_TRACE(split);
    const Plan plan = eight_sequences(job, split);
    std::vector<EchoSink> sinks(cases.size());
    job.run(plan, [&](TinyRank& rank) {
      std::minstd_rand random(static_cast<uint32_t>(rank.mesh.rank) + 1);
      const auto dawdle = [&] {
        if (random() % 4 == 0) std::this_thread::sleep_for(milliseconds(random() % 4));
      };
      if (!rank.mesh.front()) {
        return follow_beside(rank, [&](const StepBatch&) { dawdle(); });
      }
      Watchdog watchdog = quiet_watchdog();
      Metrics metrics;
      Engine engine(plan, job.spec, rank.pipeline, rank.mesh, watchdog, metrics);
      for (size_t i = 0; i < cases.size(); ++i) submit(engine, cases[i], sinks[i]);
      while (engine.step()) dawdle();
      engine.stop();
    });
    for (size_t i = 0; i < cases.size(); ++i) EXPECT_EQ(sinks[i].tokens, expected[i]) << i;
  }
}

// The last stage begins no step before the front has started as many as there are stages: an engine
// that waits for results, or sends that wait for the receiver, never get there.
TEST(EngineFlightTest, EveryStageHasAStepOfItsOwn) {
  const TinyJob job(four_layers());
  for (const char* split : {"1+1", "1+1+1", "1+1+1+1"}) {
    SCOPED_TRACE(split);
    const Plan plan = eight_sequences(job, split);
    const auto depth = static_cast<int64_t>(plan.stages.size());
    EchoSink sinks[8];
    std::atomic<bool> last_steps{false};
    Metrics metrics;
    std::atomic<int> waited_in_vain{0};
    job.run(plan, [&](TinyRank& rank) {
      if (rank.mesh.stage == plan.last_stage()) {
        return follow_beside(rank, [&](const StepBatch& batch) {
          const auto end = Clock::now() + std::chrono::minutes(1);
          while (!last_steps && metrics.step < batch.number + depth - 1) {
            if (Clock::now() > end) {
              ++waited_in_vain;
              last_steps = true;
            }
            std::this_thread::yield();
          }
        });
      }
      if (!rank.mesh.front()) return follow_beside(rank, [](const StepBatch&) {});
      Watchdog watchdog = quiet_watchdog();
      Engine engine(plan, job.spec, rank.pipeline, rank.mesh, watchdog, metrics);
      for (uint32_t i = 0; i < 8; ++i) {
        ASSERT_EQ(engine.submit(echo_request(sinks[i], tiny_tokens(7, 80, i), 6)), "");
      }
      // Chunks, then groups; the last ones have nothing behind them.
      while (sinks[7].tokens.size() < 4) engine.step();
      last_steps = true;
      engine.run_until_idle();
      engine.stop();
    });
    EXPECT_EQ(waited_in_vain, 0);
  }
}

TEST(EngineFlightTest, StepsMadeByHand) {
  const TinyJob job(four_layers());
  const auto tokens = tiny_tokens(32, 80);
  const auto expected = job.logits(job.plan(tiny_request()), tokens);
  for (const char* split : kPipelines) {
    SCOPED_TRACE(split);
    const Plan plan = eight_sequences(job, split);
    run_engine(job, plan, [&](Engine& engine, Metrics&) {
      std::vector<size_t> rows;
      size_t ended = 0;
      const auto collect = [&] {
        const StepResult& result = engine.collect();
        ASSERT_EQ(result.n_rows, 1);
        const auto& whole = result.rows[0].whole;
        EXPECT_EQ(std::vector<float>(whole.begin(), whole.end()), expected[rows[ended++]]);
      };
      StepBatch batch(plan.limits, plan.kv.n_pages);
      for (size_t at = 0; at < tokens.size(); at += 8) {
        if (engine.in_flight() == engine.most_in_flight()) collect();
        batch.clear();
        batch.number = static_cast<int64_t>(rows.size());
        TinyJob::append(batch, plan, {tokens.begin() + at, tokens.begin() + at + 8}, at, 0, 0);
        rows.push_back(at + 3);
        batch.logit_rows = {{3, 0, 0}};
        engine.start(batch);
        batch.tokens.assign(8, 0);  // the engine has a copy
      }
      EXPECT_EQ(engine.in_flight(), std::min<int64_t>(engine.most_in_flight(), 4));
      while (engine.in_flight() > 0) collect();
      EXPECT_EQ(ended, 4U);
    });
  }
}

TEST(EngineFlightTest, StopWithStepsInFlight) {
  const TinyJob job(four_layers());
  for (const char* split : kPipelines) {
    SCOPED_TRACE(split);
    EchoSink sinks[8];
    run_engine(job, eight_sequences(job, split), [&](Engine& engine, Metrics&) {
      for (uint32_t i = 0; i < 8; ++i) {
        ASSERT_EQ(engine.submit(echo_request(sinks[i], tiny_tokens(7, 80, i), 30)), "");
      }
      for (int i = 0; i < 12; ++i) engine.step();
      EXPECT_GT(engine.in_flight(), 0);
    });
  }
}

TEST(EngineFlightTest, CancelledWhileItsStepIsInFlight) {
  const TinyJob job(four_layers());
  for (const char* split : {"1+1", "1+1+1+1"}) {
    SCOPED_TRACE(split);
    EchoSink sinks[6];
    EchoSink alone;
    std::atomic<bool> cancelled{false};
    run_engine(job, eight_sequences(job, split), [&](Engine& engine, Metrics&) {
      for (uint32_t i = 0; i < 6; ++i) {
        Request request = echo_request(sinks[i], tiny_tokens(20, 80, i), 30);
        if (i % 2 == 0) request.cancelled = &cancelled;
        ASSERT_EQ(engine.submit(std::move(request)), "");
      }
      while (sinks[0].tokens.size() < 5) engine.step();
      EXPECT_GT(engine.in_flight(), 0);
      cancelled = true;
      engine.run_until_idle();
      ASSERT_EQ(engine.submit(echo_request(alone, tiny_tokens(20, 80, 1), 30)), "");
      engine.run_until_idle();
    });
    for (int i = 0; i < 6; ++i) {
      const auto reason = i % 2 == 0 ? FinishReason::kCancelled : FinishReason::kLength;
      EXPECT_EQ(sinks[i].reason, reason) << i;
    }
    EXPECT_EQ(sinks[1].tokens, alone.tokens);
  }
}

// NaN in a step while others are in flight: requests end, the followers can still be stopped.
TEST(EngineFlightTest, NanWithOthersInFlight) {
  TinyOptions options = four_layers();
  options.poke["blk.1.ffn_norm.weight"][5] = std::numeric_limits<float>::quiet_NaN();
  const TinyJob job(options);
  for (const char* split : kPipelines) {
    SCOPED_TRACE(split);
    EchoSink sinks[6];
    run_engine(job, eight_sequences(job, split), [&](Engine& engine, Metrics&) {
      for (uint32_t i = 0; i < 6; ++i) {
        ASSERT_EQ(engine.submit(echo_request(sinks[i], tiny_tokens(8, 80, i), 4)), "");
      }
      EXPECT_THROW(engine.run_until_idle(), NotFinite);
    });
    for (const EchoSink& sink : sinks) {
      EXPECT_EQ(sink.reason, FinishReason::kError);
      EXPECT_NE(sink.message.find("step 0: the model computes NaN"), std::string::npos);
    }
  }
}

// The front's watchdog over a last stage that is slow in every step, and then stuck in one. A step
// during which the machine did something else for longer than the deadline is reported with right:
// `late` counts the deadlines that the front itself has seen pass.
TEST(EngineFlightTest, TheDeadlineIsThatOfTheOldestStep) {
  constexpr int64_t kStuck = 12;
  constexpr milliseconds kDeadline(1000);
  const TinyJob job(four_layers());
  for (const char* split : {"1+1", "1+1+1"}) {
    SCOPED_TRACE(split);
    const Plan plan = eight_sequences(job, split);
    std::mutex mutex;
    std::vector<std::string> reports;
    const auto stuck_is_reported = [&] {
      const std::lock_guard lock(mutex);
      return !reports.empty() && reports.back().rfind("step 12 takes more than", 0) == 0;
    };
    size_t late = 0;
    EchoSink sinks[6];
    job.run(plan, [&](TinyRank& rank) {
      if (rank.mesh.stage == plan.last_stage()) {
        return follow_beside(rank, [&](const StepBatch& batch) {
          if (batch.number > kStuck) return;
          std::this_thread::sleep_for(milliseconds(150));
          if (batch.number < kStuck) return;
          const auto end = Clock::now() + std::chrono::minutes(1);
          while (!stuck_is_reported() && Clock::now() < end) {
            std::this_thread::sleep_for(milliseconds(5));
          }
        });
      }
      if (!rank.mesh.front()) return follow_beside(rank, [](const StepBatch&) {});
      Watchdog watchdog(
          kDeadline, [] { return std::string(); },
          [&](const std::string& text) {
            const std::lock_guard lock(mutex);
            reports.push_back(text);
          });
      Metrics metrics;
      Engine engine(plan, job.spec, rank.pipeline, rank.mesh, watchdog, metrics);
      for (uint32_t i = 0; i < 6; ++i) {
        ASSERT_EQ(engine.submit(echo_request(sinks[i], tiny_tokens(4, 80, i), 8)), "");
      }
      for (auto before = Clock::now(); engine.step();) {
        const auto now = Clock::now();
        late += static_cast<size_t>((now - before) / kDeadline);
        before = now;
      }
      std::this_thread::sleep_for(milliseconds(1500));  // idle is not stuck
      engine.stop();
    });
    EXPECT_TRUE(std::any_of(reports.begin(), reports.end(), [](const std::string& report) {
      return report.rfind("step 12 takes more than", 0) == 0;
    }));
    EXPECT_GE(late, 1U);
    EXPECT_LE(reports.size(), late) << reports.front();
  }
}

}  // namespace
}  // namespace spillway::testing

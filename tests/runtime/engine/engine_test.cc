// Engine and followers end to end, ranks as threads: the same text on every split, requests beside
// each other, faults that end every request.
#include "runtime/engine/engine.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "kernels/core/error.h"
#include "runtime/engine/follower.h"
#include "tests/support/paged_echo.h"
#include "tests/support/tiny_engine.h"

namespace spillway::testing {
namespace {

using Text = std::vector<int32_t>;

Text generate(const TinyJob& job, const std::string& split, const SamplingParams& sampling) {
  EchoSink sink;
  run_engine(job, split, [&](Engine& engine, Metrics&) {
    Request request = echo_request(sink, tiny_tokens(21, 80), 40);
    request.sampling = sampling;
    ASSERT_EQ(engine.submit(std::move(request)), "");
    engine.run_until_idle();
  });
  EXPECT_TRUE(sink.finished);
  EXPECT_EQ(sink.reason, FinishReason::kLength);
  return sink.tokens;
}

TEST(EngineTest, TheSameTextOnEverySplit) {
  const TinyJob job(tiny());
  SamplingParams greedy;
  greedy.temperature = 0;
  SamplingParams whole_rows = warm(8);
  whole_rows.top_k = 0;
  const std::vector<SamplingParams> ways = {greedy, warm(5), warm(6), whole_rows};
  std::vector<Text> expected;
  for (const SamplingParams& way : ways) expected.push_back(generate(job, "1", way));
  EXPECT_NE(expected[1], expected[2]);
  for (const Text& text : expected) EXPECT_EQ(text.size(), 40U);
  for (const char* split : {"1:1", "1+1", "2:1:1", "1@1+2@1:1", "1@1:1+2@1", "1+1+1", "1:1+1:1"}) {
    SCOPED_TRACE(split);
    for (size_t i = 0; i < ways.size(); ++i) EXPECT_EQ(generate(job, split, ways[i]), expected[i]);
  }
}

TEST(EngineTest, GreedyFollowsTheLogits) {
  const TinyJob job(tiny());
  SamplingParams greedy;
  greedy.temperature = 0;
  const Text text = generate(job, "1:1", greedy);
  Text all = tiny_tokens(21, 80);
  all.insert(all.end(), text.begin(), text.end());
  const auto logits = job.logits(job.plan(tiny_request()), all);
  for (size_t i = 0; i < text.size(); ++i) {
    const auto& row = logits[20 + i];
    EXPECT_EQ(text[i], std::max_element(row.begin(), row.end()) - row.begin()) << "token " << i;
  }
}

TEST(EngineTest, RequestsBesideEachOtherGetWhatTheyGetAlone) {
  const TinyJob job(tiny());
  struct Case {
    Text prompt;
    int64_t most;
    uint64_t seed;
    Text alone;
  };
  std::vector<Case> cases;
  for (uint32_t i = 0; i < 7; ++i) {
    cases.push_back({tiny_tokens(1 + 5 * i, 80, i), 4 + 3 * i, i, {}});
  }
  const auto submit = [](Engine& engine, const Case& c, EchoSink& sink) {
    Request request = echo_request(sink, c.prompt, c.most);
    request.sampling = warm(c.seed);
    ASSERT_EQ(engine.submit(std::move(request)), "");
  };
  run_engine(job, "1", [&](Engine& engine, Metrics&) {
    for (Case& c : cases) {
      EchoSink sink;
      submit(engine, c, sink);
      engine.run_until_idle();
      c.alone = sink.tokens;
    }
  });
  for (const char* split : {"1", "1:1", "1+1", "1+1:1"}) {
    SCOPED_TRACE(split);
    std::vector<EchoSink> sinks(cases.size());
    run_engine(job, split, [&](Engine& engine, Metrics& metrics) {
      for (size_t i = 0; i < cases.size(); ++i) {
        submit(engine, cases[i], sinks[i]);
        if (i % 2 == 1) engine.step();  // some arrive while others run
      }
      engine.run_until_idle();
      EXPECT_EQ(metrics.prompt_tokens, 1 + 6 + 11 + 16 + 21 + 26 + 31);
      EXPECT_EQ(metrics.new_tokens, 4 + 7 + 10 + 13 + 16 + 19 + 22);
      EXPECT_GT(metrics.decode_tok_per_s(), 0);
      EXPECT_GT(metrics.prefill_tok_per_s(), 0);
      EXPECT_GT(metrics.first_token_ns, 0);
    });
    for (size_t i = 0; i < cases.size(); ++i) {
      EXPECT_EQ(sinks[i].tokens, cases[i].alone) << "request " << i;
    }
  }
}

TEST(EngineTest, SubmitFromAnotherThread) {
  const TinyJob job(tiny());
  std::vector<EchoSink> sinks(30);
  run_engine(job, "1:1", [&](Engine& engine, Metrics&) {
    std::atomic<bool> done{false};
    std::thread client([&] {
      for (EchoSink& sink : sinks) {
        EXPECT_EQ(engine.submit(echo_request(sink, tiny_tokens(9, 80), 3)), "");
        std::this_thread::yield();
      }
      done = true;
    });
    while (!done) engine.step();
    client.join();
    engine.run_until_idle();
  });
  for (const EchoSink& sink : sinks) {
    EXPECT_TRUE(sink.finished);
    EXPECT_EQ(sink.tokens, sinks[0].tokens);
  }
}

TEST(EngineTest, AFullQueueAnswersAtOnce) {
  const TinyJob job(tiny());
  std::vector<EchoSink> sinks(Engine::kQueueCapacity + 1);
  run_engine(job, "1", [&](Engine& engine, Metrics&) {
    for (int64_t i = 0; i < Engine::kQueueCapacity; ++i) {
      ASSERT_EQ(engine.submit(echo_request(sinks[i], {1, 2}, 1)), "");
    }
    EXPECT_NE(engine.submit(echo_request(sinks.back(), {1, 2}, 1)), "");
    engine.run_until_idle();
  });
  EXPECT_FALSE(sinks.back().finished);
  sinks.pop_back();
  for (const EchoSink& sink : sinks) EXPECT_TRUE(sink.finished);
}

TEST(EngineTest, StepsMadeByHandBringWholeRows) {
  const TinyJob job(tiny());
  const auto tokens = tiny_tokens(8, 80);
  const auto expected = job.logits(job.plan(tiny_request()), tokens);
  for (const char* split : {"1", "1+1:1"}) {
    const Plan plan = job.plan(request_of(split));
    run_engine(job, split, [&](Engine& engine, Metrics& metrics) {
      StepBatch batch(plan.limits, plan.kv.n_pages);
      batch.number = 41;
      TinyJob::append(batch, plan, tokens, 0, 0, 0);
      batch.logit_rows = {{7, 0, 0}};
      const StepResult& result = engine.forward(batch);
      ASSERT_EQ(result.n_rows, 1);
      const auto& whole = result.rows[0].whole;
      EXPECT_EQ(std::vector<float>(whole.begin(), whole.end()), expected[7]);
      EXPECT_EQ(metrics.step, 41);
    });
  }
}

// A follower that gives up in its third step.
void follow_then_fail(const Plan& plan, TinyRank& rank) {
  StepWire wire(plan, *rank.mesh.world);
  StepBatch batch(plan.limits, plan.kv.n_pages);
  for (int i = 0; i < 2; ++i) {
    wire.receive(batch);
    rank.pipeline.forward(batch, nullptr);
  }
  throw Error("out of memory");
}

TEST(EngineTest, AFollowersFaultEndsEveryRequest) {
  const TinyJob job(tiny());
  for (const char* split : {"1:1", "1+1", "1:1:1", "1+1:1"}) {
    SCOPED_TRACE(split);
    const Plan plan = job.plan(request_of(split));
    const int last = plan.n_ranks() - 1;
    std::vector<EchoSink> sinks(6);  // four run, two wait
    const auto body = [&](TinyRank& rank) {
      Watchdog watchdog = quiet_watchdog();
      Metrics metrics;
      if (rank.mesh.rank == last) {
        follow_then_fail(plan, rank);
      } else if (!rank.mesh.front()) {
        EXPECT_THROW(follow(plan, &rank.pipeline, rank.mesh, watchdog, metrics), Error);
      } else {
        Engine engine(plan, job.spec, rank.pipeline, rank.mesh, watchdog, metrics);
        for (EchoSink& sink : sinks) {
          ASSERT_EQ(engine.submit(echo_request(sink, tiny_tokens(5, 80), 50)), "");
        }
        EXPECT_THROW(engine.run_until_idle(), Error);
      }
    };
    EXPECT_THROW(job.run(plan, body), Error);
    for (const EchoSink& sink : sinks) {
      EXPECT_TRUE(sink.finished);
      EXPECT_EQ(sink.reason, FinishReason::kError);
      const std::string named = "rank " + std::to_string(last) + ": out of memory";
      EXPECT_NE(sink.message.find(named), std::string::npos) << sink.message;
    }
  }
}

// One value of a norm that is no number reaches every logit, whichever rank has it.
TEST(EngineTest, AModelThatComputesNanIsAnErrorWithItsStep) {
  for (const float broken : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    TinyOptions options = tiny();
    options.poke["blk.1.ffn_norm.weight"][5] = broken;
    const TinyJob job(options);
    SamplingParams greedy;
    greedy.temperature = 0;
    SamplingParams whole_rows;
    whole_rows.top_k = 0;
    for (const SamplingParams& way : {greedy, whole_rows}) {
      for (const char* split : {"1", "1:1", "1+2"}) {
        SCOPED_TRACE(split);
        EchoSink sink;
        run_engine(job, split, [&](Engine& engine, Metrics&) {
          Request request = echo_request(sink, tiny_tokens(21, 80), 4);  // three steps of 8 rows
          request.sampling = way;
          ASSERT_EQ(engine.submit(std::move(request)), "");
          EXPECT_THROW(engine.run_until_idle(), Error);
        });
        EXPECT_TRUE(sink.tokens.empty());
        EXPECT_EQ(sink.reason, FinishReason::kError);
        EXPECT_NE(sink.message.find("step 2: the model computes NaN"), std::string::npos)
            << sink.message;
      }
    }
  }
}

TEST(EngineTest, ARankWithoutAPartHearsAndDoesNothing) {
  const TinyJob job(tiny());
  const Plan plan = job.plan(request_of("1:1"));
  EchoSink sink;
  run_ranks(3, [&](std::unique_ptr<Communicator> world) {
    ThreadPool pool(1);
    const cpu::Exec exec{&pool, cpu::best_isa()};
    Mesh mesh = build_mesh(plan, std::move(world));
    std::unique_ptr<Pipeline> pipeline;
    if (mesh.tp != nullptr) {
      pipeline = std::make_unique<Pipeline>(job.gguf, job.spec, plan, mesh, exec, 0, "",
                                            std::function<void(int64_t, int64_t)>());
    }
    EXPECT_EQ(pipeline == nullptr, mesh.rank == 2);
    Watchdog watchdog = quiet_watchdog();
    Metrics metrics;
    if (!mesh.front()) return follow(plan, pipeline.get(), mesh, watchdog, metrics);
    Engine engine(plan, job.spec, *pipeline, mesh, watchdog, metrics);
    ASSERT_EQ(engine.submit(echo_request(sink, tiny_tokens(21, 80), 40)), "");
    engine.run_until_idle();
    engine.stop();
  });
  SamplingParams greedy;
  greedy.temperature = 0;
  EXPECT_EQ(sink.tokens, generate(job, "1", greedy));
}

}  // namespace
}  // namespace spillway::testing

// Scheduler: what is in which step, and how requests end; over PagedEcho instead of a model.
#include "runtime/engine/scheduler.h"

#include <gtest/gtest.h>

#include <atomic>
#include <limits>
#include <memory>
#include <random>

#include "tests/support/arrivals.h"
#include "tests/support/paged_echo.h"

namespace spillway::testing {
namespace {

struct Bench {
  explicit Bench(Plan p, int64_t queue = 8)
      : plan(std::move(p)),
        scheduler(plan, kEchoVocab, queue),
        echo(plan),
        batch(plan.limits, plan.kv.n_pages),
        result(plan.limits, 1) {}

  bool step() {
    if (!scheduler.next(batch)) return false;
    echo.forward(batch, result);
    scheduler.commit(batch, result);
    return true;
  }
  void drain(int most = 10000) {
    while (step()) ASSERT_GT(--most, 0) << "does not come to an end";
    EXPECT_TRUE(scheduler.idle());
  }
  // Rows of each sequence in the last step.
  std::vector<int32_t> rows() const {
    std::vector<int32_t> out;
    for (const StepSequence& sequence : batch.sequences) out.push_back(sequence.n_rows);
    return out;
  }

  Plan plan;
  Scheduler scheduler;
  PagedEcho echo;
  StepBatch batch;
  StepResult result;
};

using Rows = std::vector<int32_t>;

TEST(SchedulerTest, IdleHasNothingToDo) {
  Bench bench(plan_of(8, 2, 32));
  EXPECT_TRUE(bench.scheduler.idle());
  EXPECT_FALSE(bench.step());
  EXPECT_EQ(bench.batch.n_rows(), 0);
}

TEST(SchedulerTest, ReadsThePromptInChunksThenOneRowAStep) {
  Bench bench(plan_of(8, 2, 64));
  EchoSink sink;
  ASSERT_EQ(bench.scheduler.submit(echo_request(sink, prompt_of(21), 3)), "");
  EXPECT_EQ(bench.scheduler.waiting(), 1);
  for (const int32_t rows : {8, 8, 5, 1, 1}) {
    ASSERT_TRUE(bench.step());
    EXPECT_EQ(bench.rows(), Rows{rows});
    // Only the prompt's last row and drawn tokens bring logits.
    EXPECT_EQ(bench.batch.logit_rows.size(), rows == 8 ? 0U : 1U);
  }
  EXPECT_FALSE(bench.step());
  EXPECT_EQ(sink.tokens, echo_text(prompt_of(21), 3));
  EXPECT_TRUE(sink.finished);
  EXPECT_EQ(sink.reason, FinishReason::kLength);
  EXPECT_EQ(bench.scheduler.prompt_tokens_done(), 21);
  EXPECT_EQ(bench.scheduler.new_tokens_done(), 3);
}

TEST(SchedulerTest, StepsAreNumbered) {
  Bench bench(plan_of(8, 2, 64));
  EchoSink sink;
  ASSERT_EQ(bench.scheduler.submit(echo_request(sink, prompt_of(3), 3)), "");
  for (const int64_t number : {0, 1, 2}) {
    ASSERT_TRUE(bench.step());
    EXPECT_EQ(bench.batch.number, number);
  }
  EXPECT_FALSE(bench.step());  // takes no number
  EchoSink other;
  ASSERT_EQ(bench.scheduler.submit(echo_request(other, prompt_of(3), 1)), "");
  ASSERT_TRUE(bench.step());
  EXPECT_EQ(bench.batch.number, 3);
}

TEST(SchedulerTest, DecodingGoesFirstPromptsTakeWhatIsLeft) {
  Bench bench(plan_of(6, 3, 64));
  EchoSink a, b, c;
  ASSERT_EQ(bench.scheduler.submit(echo_request(a, prompt_of(4, 100), 10)), "");
  ASSERT_TRUE(bench.step());
  ASSERT_EQ(bench.scheduler.submit(echo_request(b, prompt_of(9, 200), 10)), "");
  ASSERT_EQ(bench.scheduler.submit(echo_request(c, prompt_of(4, 300), 10)), "");
  ASSERT_TRUE(bench.step());
  EXPECT_EQ(bench.rows(), (Rows{1, 5}));  // a decodes, b reads
  ASSERT_TRUE(bench.step());
  EXPECT_EQ(bench.rows(), (Rows{1, 4, 1}));  // b ends its prompt, c begins
  ASSERT_TRUE(bench.step());
  EXPECT_EQ(bench.rows(), (Rows{1, 1, 3}));
  ASSERT_TRUE(bench.step());
  EXPECT_EQ(bench.rows(), (Rows{1, 1, 1}));
  EXPECT_EQ(bench.batch.logit_rows.size(), 3U);
  bench.drain();
  EXPECT_EQ(a.tokens, echo_text(prompt_of(4, 100), 10));
  EXPECT_EQ(b.tokens, echo_text(prompt_of(9, 200), 10));
  EXPECT_EQ(c.tokens, echo_text(prompt_of(4, 300), 10));
}

TEST(SchedulerTest, PromptTokensAreCountedOnceHoweverTheyAreCut) {
  for (const int64_t max_rows : {1, 2, 3, 7, 64}) {
    Bench bench(plan_of(max_rows, 2, 64));
    EchoSink a, b;
    ASSERT_EQ(bench.scheduler.submit(echo_request(a, prompt_of(1), 4)), "");
    ASSERT_EQ(bench.scheduler.submit(echo_request(b, prompt_of(10, 50), 5)), "");
    bench.drain();
    EXPECT_EQ(bench.scheduler.prompt_tokens_done(), 11) << max_rows << " rows a step";
    EXPECT_EQ(bench.scheduler.new_tokens_done(), 9);
    EXPECT_EQ(a.tokens, echo_text(prompt_of(1), 4));
    EXPECT_EQ(b.tokens, echo_text(prompt_of(10, 50), 5));
  }
}

TEST(SchedulerTest, FewerLogitRowsThanSequences) {
  Plan plan = plan_of(16, 4, 64);
  plan.limits.max_logit_rows = 2;
  Bench bench(plan);
  EchoSink sinks[4];
  for (int32_t i = 0; i < 4; ++i) {
    ASSERT_EQ(bench.scheduler.submit(echo_request(sinks[i], prompt_of(1 + i, 10 * i), 6)), "");
  }
  bench.drain();
  for (int32_t i = 0; i < 4; ++i) {
    EXPECT_EQ(sinks[i].tokens, echo_text(prompt_of(1 + i, 10 * i), 6)) << i;
  }
}

TEST(SchedulerTest, AFullQueueSaysNoAtOnce) {
  Bench bench(plan_of(8, 1, 64), 2);
  EchoSink sinks[4];
  for (int i = 0; i < 2; ++i) {
    ASSERT_EQ(bench.scheduler.submit(echo_request(sinks[i], prompt_of(3), 2)), "");
  }
  EXPECT_EQ(bench.scheduler.submit(echo_request(sinks[2], prompt_of(3), 2)),
            "the queue is full (2 requests wait)");
  ASSERT_TRUE(bench.step());  // one runs, one waits: room again
  EXPECT_EQ(bench.scheduler.running(), 1);
  EXPECT_EQ(bench.scheduler.waiting(), 1);
  EXPECT_EQ(bench.scheduler.submit(echo_request(sinks[3], prompt_of(3), 2)), "");
  bench.drain();
  EXPECT_FALSE(sinks[2].finished);  // the refused one hears nothing
  for (const int i : {0, 1, 3}) EXPECT_TRUE(sinks[i].finished) << i;
}

TEST(SchedulerTest, RequestsThatCannotRun) {
  Bench bench(plan_of(8, 1, 16));
  EchoSink sink;
  const auto refused = [&](Request request, const std::string& part) {
    const std::string reason = bench.scheduler.submit(std::move(request));
    EXPECT_NE(reason.find(part), std::string::npos) << part << " is not in: " << reason;
  };
  refused(echo_request(sink, {}, 5), "the prompt is empty");
  refused(echo_request(sink, prompt_of(16), 5), "the prompt has 16 tokens, the context is 16");
  refused(echo_request(sink, prompt_of(500), 5), "use -c or a shorter prompt");
  refused(echo_request(sink, {1, kEchoVocab}, 5), "token 1000 is not in the vocabulary");
  refused(echo_request(sink, {-1}, 5), "token -1 is not in the vocabulary");
  refused(echo_request(sink, {1}, -1), "negative");
  Request bad = echo_request(sink, {1}, 5);
  bad.sampling.top_p = 0;
  refused(std::move(bad), "top_p");
  EXPECT_TRUE(bench.scheduler.idle());
  EXPECT_FALSE(sink.finished);
  EXPECT_EQ(bench.scheduler.submit(echo_request(sink, prompt_of(15), 5)), "");
}

TEST(SchedulerTest, EndTokensAreNotHandedOut) {
  Bench bench(plan_of(8, 1, 64));
  const auto text = echo_text(prompt_of(5), 20);
  EchoSink sink;
  Request request = echo_request(sink, prompt_of(5), 20);
  request.end_tokens = {12345, text[3]};
  ASSERT_EQ(bench.scheduler.submit(std::move(request)), "");
  bench.drain();
  EXPECT_EQ(sink.tokens, std::vector<int32_t>(text.begin(), text.begin() + 3));
  EXPECT_EQ(sink.reason, FinishReason::kStop);
}

TEST(SchedulerTest, NoNewTokensOnlyReadsThePrompt) {
  Bench bench(plan_of(8, 1, 64));
  EchoSink sink;
  ASSERT_EQ(bench.scheduler.submit(echo_request(sink, prompt_of(5), 0)), "");
  bench.drain();
  EXPECT_TRUE(sink.tokens.empty());
  EXPECT_TRUE(sink.finished);
  EXPECT_EQ(sink.reason, FinishReason::kLength);
}

TEST(SchedulerTest, EndsWhenTheContextIsFull) {
  for (const int64_t most : {int64_t{1000}, std::numeric_limits<int64_t>::max()}) {
    Bench bench(plan_of(8, 2, 16));
    EchoSink sink;
    ASSERT_EQ(bench.scheduler.submit(echo_request(sink, prompt_of(10), most)), "");
    bench.drain();
    EXPECT_EQ(sink.tokens, echo_text(prompt_of(10), 6));
    EXPECT_EQ(sink.reason, FinishReason::kContext);
  }
}

TEST(SchedulerTest, CancelEndsARequestThatWaitsOrReadsItsPrompt) {
  Bench bench(plan_of(4, 1, 40));
  EchoSink reading;
  EchoSink waiting;
  EchoSink last;
  std::atomic<bool> cancelled{false};
  for (EchoSink* sink : {&reading, &waiting, &last}) {
    Request request = echo_request(*sink, prompt_of(10), 3);
    if (sink != &last) request.cancelled = &cancelled;
    ASSERT_EQ(bench.scheduler.submit(std::move(request)), "");
  }
  ASSERT_TRUE(bench.step());  // four rows of the first prompt; the second waits for the slot
  cancelled = true;
  bench.drain();
  for (const EchoSink* sink : {&reading, &waiting}) {
    EXPECT_EQ(sink->reason, FinishReason::kCancelled);
    EXPECT_TRUE(sink->finished);
    EXPECT_TRUE(sink->tokens.empty());
  }
  EXPECT_EQ(last.reason, FinishReason::kLength);
  EXPECT_EQ(last.tokens.size(), 3U);
}

TEST(SchedulerTest, AClientThatIsGoneIsCancelled) {
  Bench bench(plan_of(8, 2, 64));
  EchoSink gone, other;
  gone.cancel_at = 2;
  ASSERT_EQ(bench.scheduler.submit(echo_request(gone, prompt_of(5), 20)), "");
  ASSERT_EQ(bench.scheduler.submit(echo_request(other, prompt_of(6, 50), 7)), "");
  bench.drain();
  EXPECT_EQ(gone.tokens.size(), 2U);
  EXPECT_EQ(gone.reason, FinishReason::kCancelled);
  EXPECT_EQ(other.tokens, echo_text(prompt_of(6, 50), 7));
  EXPECT_EQ(other.reason, FinishReason::kLength);
}

TEST(SchedulerTest, WaitsForPagesThatOthersGiveBack) {
  // 8 pages of 4 tokens: a request of 6 pages, then two of 4 that must wait, in order.
  Bench bench(plan_of(32, 4, 32, 8));
  EchoSink a, b, c;
  ASSERT_EQ(bench.scheduler.submit(echo_request(a, prompt_of(20), 4)), "");
  ASSERT_EQ(bench.scheduler.submit(echo_request(b, prompt_of(12, 100), 4)), "");
  ASSERT_EQ(bench.scheduler.submit(echo_request(c, prompt_of(12, 200), 4)), "");
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(bench.step());
    EXPECT_EQ(bench.batch.sequences.size(), 1U);
  }
  EXPECT_TRUE(a.finished);
  ASSERT_TRUE(bench.step());  // both fit now
  EXPECT_EQ(bench.scheduler.running(), 2);
  bench.drain();
  EXPECT_EQ(b.tokens, echo_text(prompt_of(12, 100), 4));
  EXPECT_EQ(c.tokens, echo_text(prompt_of(12, 200), 4));
}

TEST(SchedulerTest, PagesAndSlotsComeBackAfterEveryKindOfEnd) {
  Bench bench(plan_of(32, 2, 32, 8));
  for (int round = 0; round < 50; ++round) {
    EchoSink length, stop, cancel, context;
    ASSERT_EQ(bench.scheduler.submit(echo_request(length, prompt_of(14), 2)), "");
    Request ends = echo_request(stop, prompt_of(10, 30), 6);
    ends.end_tokens = {echo_text(prompt_of(10, 30), 2)[1]};
    ASSERT_EQ(bench.scheduler.submit(std::move(ends)), "");
    cancel.cancel_at = 1;
    ASSERT_EQ(bench.scheduler.submit(echo_request(cancel, prompt_of(15), 9)), "");
    ASSERT_EQ(bench.scheduler.submit(echo_request(context, prompt_of(30), 9)), "");
    bench.drain();
    EXPECT_EQ(length.reason, FinishReason::kLength);
    EXPECT_EQ(stop.reason, FinishReason::kStop);
    EXPECT_EQ(cancel.reason, FinishReason::kCancelled);
    EXPECT_EQ(context.reason, FinishReason::kContext);
    EXPECT_EQ(context.tokens, echo_text(prompt_of(30), 2));
  }
}

TEST(SchedulerTest, FinishAllEndsRunningAndWaitingAlike) {
  Bench bench(plan_of(8, 1, 64));
  EchoSink running, waiting, later;
  ASSERT_EQ(bench.scheduler.submit(echo_request(running, prompt_of(5), 20)), "");
  ASSERT_EQ(bench.scheduler.submit(echo_request(waiting, prompt_of(5), 20)), "");
  ASSERT_TRUE(bench.step());
  bench.scheduler.finish_all(FinishReason::kError, "rank 3 is gone");
  for (const EchoSink* sink : {&running, &waiting}) {
    EXPECT_TRUE(sink->finished);
    EXPECT_EQ(sink->reason, FinishReason::kError);
    EXPECT_EQ(sink->message, "rank 3 is gone");
  }
  EXPECT_TRUE(bench.scheduler.idle());
  ASSERT_EQ(bench.scheduler.submit(echo_request(later, prompt_of(40, 7), 20)), "");
  bench.drain();
  EXPECT_EQ(later.tokens, echo_text(prompt_of(40, 7), 20));
}

TEST(SchedulerTest, ASinkThatThrowsLeavesTheRestEndable) {
  struct Thrower : EchoSink {
    bool on_token(int32_t) override { throw std::runtime_error("broken pipe"); }
  };
  Bench bench(plan_of(16, 3, 64));
  EchoSink ended, open;
  Thrower thrower;
  ASSERT_EQ(bench.scheduler.submit(echo_request(ended, prompt_of(2), 1)), "");
  ASSERT_EQ(bench.scheduler.submit(echo_request(thrower, prompt_of(3), 9)), "");
  ASSERT_EQ(bench.scheduler.submit(echo_request(open, prompt_of(4), 9)), "");
  EXPECT_THROW(bench.step(), std::runtime_error);
  bench.scheduler.finish_all(FinishReason::kError, "broken pipe");
  EXPECT_EQ(ended.reason, FinishReason::kLength);
  EXPECT_EQ(thrower.reason, FinishReason::kError);
  EXPECT_EQ(open.reason, FinishReason::kError);
}

TEST(SchedulerTest, ReasonsHaveNames) {
  EXPECT_STREQ(finish_reason_name(FinishReason::kStop), "stop");
  EXPECT_STREQ(finish_reason_name(FinishReason::kLength), "length");
  EXPECT_STREQ(finish_reason_name(FinishReason::kContext), "context full");
  EXPECT_STREQ(finish_reason_name(FinishReason::kCancelled), "cancelled");
  EXPECT_STREQ(finish_reason_name(FinishReason::kError), "error");
}

// --- property ------------------------------------------------------------------------------------

TEST(SchedulerPropertyTest, RandomArrivalsAllEndWithTheirOwnText) {
  for (uint32_t seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    const auto up_to = [&](int64_t n) { return static_cast<int64_t>(random()) % (n + 1); };
    const int64_t sequences = 1 + up_to(4);
    const int64_t context = 20 + up_to(60);
    // Anything from one sequence's worth of pages to plenty.
    Plan plan = plan_of(1 + up_to(20), sequences, context, div_up(context, 4) + up_to(40));
    plan.limits.max_logit_rows = 1 + up_to(sequences);
    Bench bench(plan, 1 + up_to(5));
    std::vector<std::unique_ptr<Arrival>> arrivals;
    int refused = 0;
    for (int i = 0; i < 300; ++i) {
      if (random() % 3 == 0) {
        auto arrival = std::make_unique<Arrival>();
        arrival->prompt = prompt_of(1 + up_to(context - 2), static_cast<int32_t>(up_to(500)));
        arrival->most = up_to(30);
        if (random() % 4 == 0) arrival->sink.cancel_at = 1 + up_to(10);
        const std::string reason =
            bench.scheduler.submit(echo_request(arrival->sink, arrival->prompt, arrival->most));
        if (reason.empty()) {
          arrivals.push_back(std::move(arrival));
        } else {
          ASSERT_EQ(reason.rfind("the queue is full", 0), 0U) << reason;
          ++refused;
        }
      }
      // Whoever waits is kept from running by others' pages and slots only: every step gets on.
      const bool busy = !bench.scheduler.idle();
      ASSERT_EQ(bench.step(), busy);
    }
    bench.drain();
    for (const auto& arrival : arrivals) expect_text_of(*arrival, context);
    EXPECT_GT(arrivals.size(), 5U);
    // No page and no slot was lost: a sequence of the whole context, and all slots at once.
    Arrival last;
    last.prompt = prompt_of(context - 2);
    last.most = 100;
    ASSERT_EQ(bench.scheduler.submit(echo_request(last.sink, last.prompt, last.most)), "");
    bench.drain();
    expect_text_of(last, context);
  }
}

TEST(SchedulerPropertyTest, AllPagesAndSlotsAreFreeAgainAfterManyRequests) {
  Bench bench(plan_of(16, 4, 32, 8), 8);
  std::mt19937 random(2);
  for (int round = 0; round < 200; ++round) {
    EchoSink sink;
    sink.cancel_at = static_cast<int64_t>(random() % 6);
    const auto prompt = prompt_of(1 + static_cast<int64_t>(random() % 30));
    ASSERT_EQ(bench.scheduler.submit(echo_request(sink, prompt, 8)), "");
    bench.drain();
  }
  EchoSink sinks[4];  // two pages each: all 8 pages and all 4 slots in one step
  for (EchoSink& sink : sinks) {
    ASSERT_EQ(bench.scheduler.submit(echo_request(sink, prompt_of(4), 4)), "");
  }
  ASSERT_TRUE(bench.step());
  EXPECT_EQ(bench.scheduler.running(), 4);
  EXPECT_EQ(bench.batch.sequences.size(), 4U);
  bench.drain();
}

}  // namespace
}  // namespace spillway::testing

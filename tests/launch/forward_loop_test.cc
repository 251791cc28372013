// ForwardLoop: chunks, restarts and kinds of answers of steps made by hand.
#include "launch/forward_loop.h"

#include <gtest/gtest.h>

#include "runtime/engine/follower.h"
#include "tests/support/tiny_job.h"

namespace spillway::testing {
namespace {

using Row = std::vector<float>;

void with_loop(const TinyJob& job, const Plan& plan,
               const std::function<void(ForwardLoop&)>& body) {
  job.run(plan, [&](TinyRank& rank) {
    Watchdog watchdog(
        std::chrono::minutes(5), [] { return std::string(); }, [](const std::string&) {});
    Metrics metrics;
    if (!rank.mesh.front()) {
      follow(plan, &rank.pipeline, rank.mesh, watchdog, metrics);
      return;
    }
    Engine engine(plan, job.spec, rank.pipeline, rank.mesh, watchdog, metrics);
    ForwardLoop loop(plan, engine);
    body(loop);
    engine.stop();
  });
}

Row whole(const StepResult& result) {
  EXPECT_EQ(result.n_rows, 1);
  const auto& row = result.rows[0].whole;
  return {row.begin(), row.end()};
}

TEST(ForwardLoopTest, ChunksPiecesAndRestartsGiveTheSameRow) {
  const TinyJob job(TinyOptions{});
  PlanRequest request = tiny_request();
  request.limits.max_rows = 16;
  const Plan plan = job.plan(request);
  const auto tokens = tiny_tokens(50, 80);
  const std::span<const int32_t> all(tokens);
  const Row expected = job.logits(plan, tokens, 16).back();
  with_loop(job, plan, [&](ForwardLoop& loop) {
    EXPECT_EQ(whole(loop.feed(all, 0)), expected);
    for (const int64_t chunk : {1, 7, 16, 1000}) {
      loop.restart();
      EXPECT_EQ(whole(loop.feed(all, 0, chunk)), expected) << "chunks of " << chunk;
    }
    loop.restart();
    EXPECT_EQ(loop.feed(all.first(30), -1).n_rows, 0);
    EXPECT_EQ(whole(loop.feed(all.subspan(30), 0)), expected);
    loop.restart();
    const StepResult& best = loop.feed(all, 3);
    ASSERT_EQ(best.rows[0].candidates.size(), 3U);
    const auto top = std::max_element(expected.begin(), expected.end());
    EXPECT_EQ(best.rows[0].candidates[0].token, top - expected.begin());
    EXPECT_EQ(best.rows[0].candidates[0].logit, *top);
  });
}

TEST(ForwardLoopTest, AStepGivesTheRowsOfItsLastTokens) {
  const TinyJob job(TinyOptions{});
  for (const auto& split : {std::vector<StagePin>{{0, {1}}}, {{0, {1, 2}}, {0, {1}}}}) {
    const Plan plan = job.plan(tiny_request(split));
    const auto tokens = tiny_tokens(50, 80);
    const std::span<const int32_t> all(tokens);
    const auto expected = job.logits(plan, tokens);
    const auto check = [&](const StepResult& result, size_t first, size_t n) {
      ASSERT_EQ(result.n_rows, static_cast<int64_t>(n));
      for (size_t i = 0; i < n; ++i) {
        const auto& row = result.rows[i].whole;
        EXPECT_EQ(Row(row.begin(), row.end()), expected[first + i]) << "position " << first + i;
      }
    };
    with_loop(job, plan, [&](ForwardLoop& loop) {
      check(loop.step(all.first(20), 0), 20, 0);
      check(loop.step(all.subspan(20, 17), 4), 33, 4);
      check(loop.step(all.subspan(37), 13), 37, 13);
      loop.restart();
      check(loop.step(all, 50), 0, 50);
    });
  }
}

TEST(ForwardLoopDeathTest, BeyondTheContextOrNothing) {
  TinyOptions options;
  options.context = 64;
  const TinyJob job(options);
  const Plan plan = job.plan(tiny_request());
  const auto tokens = tiny_tokens(65, 80);
  EXPECT_DEATH(with_loop(job, plan, [&](ForwardLoop& loop) { loop.feed(tokens, 0); }),
               "forward_loop.cc");
  EXPECT_DEATH(with_loop(job, plan, [&](ForwardLoop& loop) { loop.feed({}, 0); }),
               "forward_loop.cc");
}

}  // namespace
}  // namespace spillway::testing

// StepWire: every field of a step arrives on every rank, however long the step is.
#include "runtime/engine/step_wire.h"

#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>

#include "parallel/solo_communicator.h"
#include "tests/support/thread_communicator.h"

namespace spillway::testing {
namespace {

Plan plan_of() {
  Plan plan;
  plan.stages.resize(3);
  plan.limits.max_rows = 2000;
  plan.limits.max_sequences = 16;
  plan.limits.max_logit_rows = 16;
  plan.limits.max_wanted = 32;
  plan.kv.n_pages = 500;
  return plan;
}

StepBatch random_batch(const Plan& plan, std::mt19937& random, size_t n_tokens) {
  StepBatch batch(plan.limits, plan.kv.n_pages);
  const auto number = [&] { return static_cast<int32_t>(random()); };
  batch.number = (int64_t{number()} << 20) ^ number();
  batch.kind = random() % 5 == 0 ? StepKind::kStop : StepKind::kForward;
  for (size_t i = 0; i < n_tokens; ++i) batch.tokens.push_back(number());
  for (size_t i = random() % 17; i > 0; --i) {
    batch.sequences.push_back({number(), number(), number(), number()});
  }
  for (size_t i = random() % 501; i > 0; --i) batch.pages.push_back(number());
  for (size_t i = random() % 17; i > 0; --i) {
    batch.logit_rows.push_back({number(), number(), number()});
  }
  for (size_t i = random() % 513; i > 0; --i) batch.wanted.push_back(number());
  return batch;
}

void expect_equal(const StepBatch& a, const StepBatch& b) {
  EXPECT_EQ(a.number, b.number);
  EXPECT_EQ(a.kind, b.kind);
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.pages, b.pages);
  EXPECT_EQ(a.wanted, b.wanted);
  ASSERT_EQ(a.sequences.size(), b.sequences.size());
  for (size_t i = 0; i < a.sequences.size(); ++i) {
    EXPECT_EQ(a.sequences[i].slot, b.sequences[i].slot);
    EXPECT_EQ(a.sequences[i].n_rows, b.sequences[i].n_rows);
    EXPECT_EQ(a.sequences[i].n_pages, b.sequences[i].n_pages);
    EXPECT_EQ(a.sequences[i].first_position, b.sequences[i].first_position);
  }
  ASSERT_EQ(a.logit_rows.size(), b.logit_rows.size());
  for (size_t i = 0; i < a.logit_rows.size(); ++i) {
    EXPECT_EQ(a.logit_rows[i].row, b.logit_rows[i].row);
    EXPECT_EQ(a.logit_rows[i].n_candidates, b.logit_rows[i].n_candidates);
    EXPECT_EQ(a.logit_rows[i].n_wanted, b.logit_rows[i].n_wanted);
  }
}

void round_trip(const Plan& plan, const std::vector<StepBatch>& batches) {
  run_ranks(3, [&](std::unique_ptr<Communicator> world) {
    StepWire wire(plan, *world);
    StepBatch received(plan.limits, plan.kv.n_pages);
    const int32_t* memory = received.tokens.data();
    for (const StepBatch& batch : batches) {
      if (world->rank() == 0) {
        wire.send(batch);
      } else {
        wire.receive(received);
        expect_equal(received, batch);
        EXPECT_EQ(received.tokens.data(), memory) << "a step made a follower allocate";
      }
    }
    if (world->rank() == 0) wire.finish();
  });
}

TEST(StepWireTest, RandomSteps) {
  const Plan plan = plan_of();
  std::mt19937 random(9);
  std::vector<StepBatch> batches;
  for (int i = 0; i < 60; ++i) {
    batches.push_back(random_batch(plan, random, i % 3 == 0 ? random() % 2001 : random() % 20));
  }
  round_trip(plan, batches);
}

TEST(StepWireTest, AroundTheFirstMessagesEnd) {
  // One token more or less beside 2048 bytes: a second message or none.
  const Plan plan = plan_of();
  std::vector<StepBatch> batches;
  for (size_t n = 490; n < 520; ++n) {
    StepBatch batch(plan.limits, plan.kv.n_pages);
    batch.number = static_cast<int64_t>(n);
    for (size_t i = 0; i < n; ++i) batch.tokens.push_back(static_cast<int32_t>(i * n));
    batches.push_back(batch);
  }
  round_trip(plan, batches);
}

TEST(StepWireTest, TheLongestStepOfThePlan) {
  const Plan plan = plan_of();
  StepBatch batch(plan.limits, plan.kv.n_pages);
  batch.tokens.assign(2000, 1);
  batch.sequences.assign(16, {1, 2, 3, 4});
  batch.pages.assign(500, 7);
  batch.logit_rows.assign(16, {1, 2, 32});
  batch.wanted.assign(16 * 32, 5);
  const StepBatch empty(plan.limits, plan.kv.n_pages);
  round_trip(plan, {batch, empty, batch});
}

// The fake's posts stay open until they are received: the front may be as many steps ahead of the
// last rank as there are stages and one.
TEST(StepWireTest, TheFrontGoesOnWhileARankIsBehind) {
  const Plan plan = plan_of();
  std::vector<StepBatch> batches;
  for (size_t n = 0; n < 12; ++n) {
    batches.emplace_back(plan.limits, plan.kv.n_pages);
    batches.back().number = static_cast<int64_t>(n);
    batches.back().tokens.assign(1000 + n, static_cast<int32_t>(n));
  }
  std::atomic<size_t> sent{0};
  run_ranks(3, [&](std::unique_ptr<Communicator> world) {
    StepWire wire(plan, *world);
    StepBatch received(plan.limits, plan.kv.n_pages);
    for (size_t n = 0; n < batches.size(); ++n) {
      if (world->rank() == 0) {
        wire.send(batches[n]);
        sent = n + 1;
        continue;
      }
      if (world->rank() == 2) {
        while (sent < std::min(n + 4, batches.size())) std::this_thread::yield();
        EXPECT_LE(sent, n + 5);  // it may be about to count the one that n - 1 made room for
      }
      wire.receive(received);
      expect_equal(received, batches[n]);
    }
    if (world->rank() == 0) wire.finish();
  });
}

TEST(StepAllowanceTest, GrantsTheStepsBeforeItAsWell) {
  Plan plan = plan_of();
  plan.prediction.total_ms = 3;
  plan.prediction.prefill_tok_per_s = 1000;
  const auto granted = [&](std::initializer_list<size_t> steps) {
    StepAllowance allowance(plan);
    StepBatch batch(plan.limits, plan.kv.n_pages);
    std::vector<int64_t> ms;
    for (const size_t rows : steps) {
      batch.tokens.assign(rows, 0);
      ms.push_back(allowance.next(batch).count());
    }
    return ms;
  };
  // Ten times 3 ms, or a millisecond a row; three stages may be four steps behind.
  EXPECT_EQ(granted({1, 100, 1, 1, 1, 1, 50}),
            (std::vector<int64_t>{30, 1030, 1060, 1090, 1090, 120, 590}));
  plan.stages.resize(1);
  EXPECT_EQ(granted({1, 100, 1}), (std::vector<int64_t>{30, 1000, 30}));
}

TEST(StepWireTest, AloneNothingIsSent) {
  const Plan plan = plan_of();
  const auto solo = make_solo_communicator();
  StepWire wire(plan, *solo);
  wire.send(StepBatch(plan.limits, plan.kv.n_pages));
  wire.finish();
}

TEST(StepWireDeathTest, MoreThanThePlanAllows) {
  const Plan plan = plan_of();
  StepBatch batch(plan.limits, plan.kv.n_pages);
  batch.tokens.assign(10000, 1);
  const auto send = [&] {
    run_ranks(2, [&](std::unique_ptr<Communicator> world) {
      StepWire wire(plan, *world);
      StepBatch received(plan.limits, plan.kv.n_pages);
      world->rank() == 0 ? wire.send(batch) : wire.receive(received);
    });
  };
  EXPECT_DEATH(send(), "step_wire.cc");
}

}  // namespace
}  // namespace spillway::testing

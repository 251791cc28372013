// StepWire: every field of a step arrives on every rank, however long the step is.
#include "runtime/engine/step_wire.h"

#include <gtest/gtest.h>

#include <random>

#include "parallel/solo_communicator.h"
#include "tests/support/thread_communicator.h"

namespace spillway::testing {
namespace {

Plan plan_of() {
  Plan plan;
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
    StepWire wire(plan);
    StepBatch received(plan.limits, plan.kv.n_pages);
    const int32_t* memory = received.tokens.data();
    for (const StepBatch& batch : batches) {
      if (world->rank() == 0) {
        wire.send(batch, *world);
      } else {
        wire.receive(received, *world);
        expect_equal(received, batch);
        EXPECT_EQ(received.tokens.data(), memory) << "a step made a follower allocate";
      }
    }
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

TEST(StepWireTest, AroundTheFirstBroadcastsEnd) {
  // One token more or less beside 4096 bytes: a second broadcast or none.
  const Plan plan = plan_of();
  std::vector<StepBatch> batches;
  for (size_t n = 1000; n < 1030; ++n) {
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

TEST(StepWireTest, AloneNothingIsSent) {
  const Plan plan = plan_of();
  StepWire wire(plan);
  const auto solo = make_solo_communicator();
  wire.send(StepBatch(plan.limits, plan.kv.n_pages), *solo);
}

TEST(StepWireDeathTest, MoreThanThePlanAllows) {
  const Plan plan = plan_of();
  StepBatch batch(plan.limits, plan.kv.n_pages);
  batch.tokens.assign(10000, 1);
  const auto send = [&] {
    run_ranks(2, [&](std::unique_ptr<Communicator> world) {
      StepWire wire(plan);
      StepBatch received(plan.limits, plan.kv.n_pages);
      world->rank() == 0 ? wire.send(batch, *world) : wire.receive(received, *world);
    });
  };
  EXPECT_DEATH(send(), "step_wire.cc");
}

}  // namespace
}  // namespace spillway::testing

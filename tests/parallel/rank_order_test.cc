// Which ranks form which stages where they are unlike: neighbours of a candidate, plans that no
// pinned order beats, and jobs that fewer ranks would do faster.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "parallel/explain.h"
#include "parallel/neighbours.h"
#include "parallel/planner.h"
#include "parallel/search.h"
#include "tests/parallel/made_up_gpus.h"
#include "tests/parallel/refusal.h"

namespace spillway {
namespace {

using testing::expect_says;
using testing::gpus;
using testing::llama_70b;
using testing::llama_8b;
using testing::smollm2;
using testing::with_host_rates;

PlanRequest latency_request() {
  PlanRequest request;
  request.choose_cpu_rows = true;
  request.gpu_rows = 2048;
  request.choose_gpu_rows = true;
  request.device = DeviceChoice::kGpu;
  return request;
}

Candidate candidate_of(const std::vector<size_t>& sizes, const std::vector<int>& order) {
  Candidate out;
  for (const size_t size : sizes) out.stages.push_back({0, std::vector<double>(size, 1.0)});
  out.order = order;
  return out;
}

std::set<std::string> texts_of(const std::vector<Candidate>& candidates) {
  std::set<std::string> out;
  for (const Candidate& one : candidates) {
    std::string text;
    size_t at = 0;
    for (const StagePin& stage : one.stages) {
      if (!text.empty()) text += "+";
      for (size_t i = 0; i < stage.shares.size(); ++i) text += std::to_string(one.order[at++]);
    }
    out.insert(text);
  }
  return out;
}

// By hand.
TEST(Neighbours, DifferByOneStep) {
  const Candidate candidate = candidate_of({2, 1}, {0, 1, 2});
  EXPECT_EQ(texts_of(neighbours(candidate, {0, 1, 2}, 3)),
            (std::set<std::string>{"02+1", "0+21", "0+1+2", "0+2+1", "012"}));
  // Rank 1 is as rank 2: nothing is swapped. No third stage.
  EXPECT_EQ(texts_of(neighbours(candidate, {0, 1, 1}, 2)), (std::set<std::string>{"0+21", "012"}));
  EXPECT_TRUE(neighbours(candidate_of({1}, {0}), {0}, 9).empty());
}

TEST(Neighbours, LeaveRank0WhereItIsAndKeepAllRanks) {
  const Candidate candidate = candidate_of({2, 1, 3}, {0, 4, 2, 1, 3, 5});
  for (const Candidate& next : neighbours(candidate, {0, 1, 2, 3, 4, 5}, 6)) {
    EXPECT_EQ(next.order[0], 0);
    std::vector<int> sorted = next.order;
    std::sort(sorted.begin(), sorted.end());
    EXPECT_EQ(sorted, (std::vector<int>{0, 1, 2, 3, 4, 5}));
    size_t ranks = 0;
    for (const StagePin& stage : next.stages) {
      EXPECT_FALSE(stage.shares.empty());
      ranks += stage.shares.size();
    }
    EXPECT_EQ(ranks, 6u);
  }
}

// Of every order that may be pinned none is predicted faster by more than what a search disdains.
// The machine is one on which sorted orders alone lost 1.4 times (found by random search).
TEST(RankOrders, OfFiveUnlikeGpusNoneThatIsPinnedBeatsThePlan) {
  const testing::Shape shape = {"32B", 64, 5120, 40, 8, 128, 27648, 152064, 32768, QuantType::kQ4_K,
                                false};
  const ModelSpec model = testing::model_of(shape);
  ClusterSpec cluster = with_host_rates(gpus({16, 6, 8, 24, 12}), 3.2, 7);
  const double rates[] = {500, 4000, 1200, 1650, 866};
  for (RankSpec& rank : cluster.ranks) {
    rank.gpu.read_gb_per_s = rates[rank.rank];
    rank.gpu.matrix_tflops = rates[rank.rank] / 10;
    rank.matrix_gop_per_s = 64;
    rank.memory_free_bytes = int64_t{13} << 28;
  }
  cluster.link = {5, 10, true};
  PlanRequest request = latency_request();
  request.device = DeviceChoice::kAuto;
  request.limits.max_sequences = request.limits.max_logit_rows = 1;
  const double ms = make_plan(model, cluster, request).prediction.total_ms;
  std::vector<int> order(5);
  std::iota(order.begin(), order.end(), 0);
  double best = ms;
  do {
    PlanRequest pinned = request;
    pinned.order = order;
    best = std::min(best, make_plan(model, cluster, pinned).prediction.total_ms);
  } while (std::next_permutation(order.begin() + 1, order.end()));
  EXPECT_LE(ms, best * 1.025);
}

// Every rank has a part: to a small model on slow links the others are a burden.
TEST(Explain, SaysWhereFewerRanksAreFaster) {
  ClusterSpec cluster = gpus({24, 24, 24, 24});
  for (RankSpec& rank : cluster.ranks) rank.host = "host" + std::to_string(rank.rank);
  cluster.link = {50, 1, true};
  const PlanRequest request = latency_request();
  const Planned planned = plan_and_others(smollm2(), cluster, request);
  const Explanation e = explain(planned, smollm2(), cluster, request);
  ASSERT_TRUE(e.fewer);
  EXPECT_EQ(e.fewer->ranks, 1);
  // As planning for that one says.
  ClusterSpec one = cluster;
  one.ranks.resize(1);
  const Plan alone = make_plan(smollm2(), one, request);
  EXPECT_NEAR(e.fewer->times, planned.plan.prediction.total_ms / alone.prediction.total_ms, 1e-6);
  expect_says(explanation_text(e, planned.plan),
              {"1 of the 4 ranks alone is predicted ", " times as fast: mpirun -np 1\n"});
  // Ranks that were named are not taken away, and what needs all of them is not advised against.
  PlanRequest pinned = request;
  pinned.pp = 4;
  EXPECT_FALSE(fewer_ranks(make_plan(smollm2(), cluster, pinned), smollm2(), cluster, pinned));
  const ClusterSpec together = with_host_rates(gpus({24, 24}));
  EXPECT_FALSE(
      fewer_ranks(make_plan(llama_70b(), together, request), llama_70b(), together, request));
}

// GPUs lead, ranks without follow: these alone are what the model needs.
TEST(Explain, SaysWhereTheGpusAloneAreFaster) {
  ClusterSpec cluster = with_host_rates(gpus({24, 24, 0, 0}), 10);
  PlanRequest request = latency_request();
  request.device = DeviceChoice::kAuto;
  const Plan plan = make_plan(llama_8b(), cluster, request);
  const auto fewer = fewer_ranks(plan, llama_8b(), cluster, request);
  ASSERT_TRUE(fewer);
  EXPECT_LE(fewer->ranks, 2);
  EXPECT_GT(fewer->times, 2);
}

}  // namespace
}  // namespace spillway

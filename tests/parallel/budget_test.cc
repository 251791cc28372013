// Budgets: their words, what they come to by rank, and plans that keep within them.
#include "parallel/budget.h"

#include <gtest/gtest.h>

#include "kernels/core/error.h"
#include "parallel/planner.h"
#include "tests/parallel/made_up_gpus.h"
#include "tests/parallel/model_shapes.h"
#include "tests/parallel/refusal.h"

namespace spillway {
namespace {

using testing::expect_says;
using testing::gpus;
using testing::kGiB;
using testing::llama_8b;
using testing::refusal;

std::string fault(const std::string& text) {
  try {
    parse_budgets("--gpu-memory", text);
  } catch (const Error& error) {
    return error.what();
  }
  return "it was read";
}

TEST(Budgets, BytesWithUnitsAndParts) {
  EXPECT_EQ(parse_budgets("-", "24GiB,12GiB"),
            (std::vector<Budget>{{24 * kGiB, 0}, {12 * kGiB, 0}}));
  EXPECT_EQ(parse_budgets("-", "11.5G")[0].bytes, 23 * kGiB / 2);
  EXPECT_EQ(parse_budgets("-", "800MiB")[0].bytes, 800 << 20);
  EXPECT_EQ(parse_budgets("-", "2GB")[0].bytes, 2'000'000'000);
  EXPECT_EQ(parse_budgets("-", "12gb,3gib")[1].bytes, 3 * kGiB);
  EXPECT_EQ(parse_budgets("-", "4096B")[0].bytes, 4096);
  EXPECT_EQ(parse_budgets("-", "12884901888")[0].bytes, 12 * kGiB);
  EXPECT_EQ(parse_budgets("-", "0.8")[0].fraction, 0.8);
  EXPECT_EQ(parse_budgets("-", "1")[0].fraction, 1.0);
}

TEST(Budgets, TheTextReadsBack) {
  for (const char* text : {"24GiB,12GiB", "11.5GiB", "0.8", "0.8,3GiB", "1234567B"}) {
    const std::vector<Budget> budgets = parse_budgets("-", text);
    EXPECT_EQ(parse_budgets("-", budgets_text(budgets)), budgets) << budgets_text(budgets);
  }
}

TEST(Budgets, WhatIsNoSizeIsRefused) {
  expect_says(fault("24XiB"),
              {"\"24XiB\" has a unit that is not known", "--gpu-memory 24GiB,12GiB"});
  expect_says(fault("12"), {"\"12\" has no unit", "--gpu-memory 24GiB"});
  expect_says(fault("1.5"), {"\"1.5\" has no unit"});
  expect_says(fault("much"), {"\"much\" is no size"});
  expect_says(fault(""), {"is no size"});
  expect_says(fault("1GiB,"), {"is no size"});
  expect_says(fault("0"), {"is not above 0"});
  expect_says(fault("-3GiB"), {"is not above 0"});
  expect_says(fault("1e3GiB"), {"has a unit that is not known"});
  expect_says(fault("nanGiB"), {"\"nanGiB\" is"});
  expect_says(fault("999999999TiB"), {"more than any machine has"});
}

TEST(Budgets, OneForAllOrOneARank) {
  ClusterSpec cluster = gpus({80, 40});
  const auto of = [&](const std::string& gpu, const std::string& host) {
    return budgets_of(cluster, gpu.empty() ? std::vector<Budget>{} : parse_budgets("-", gpu),
                      host.empty() ? std::vector<Budget>{} : parse_budgets("-", host));
  };
  EXPECT_EQ(of("", "")[1], (RankBudget{40 * kGiB, 256 * kGiB - 8 * kGiB, false, false}));
  EXPECT_EQ(of("24GiB", "")[1].gpu_bytes, 24 * kGiB);
  EXPECT_EQ(of("24GiB,12GiB", "")[1].gpu_bytes, 12 * kGiB);
  EXPECT_EQ(of("0.5", "")[1].gpu_bytes, 20 * kGiB);
  // One host, two ranks: half of it each.
  EXPECT_EQ(of("", "48GiB")[0].host_bytes, 24 * kGiB);
  EXPECT_EQ(of("", "48GiB,8GiB")[1].host_bytes, 8 * kGiB);
  cluster.ranks[1].host = "two";
  EXPECT_EQ(of("", "48GiB")[1].host_bytes, 48 * kGiB);
}

TEST(Budgets, OfAGpuThatRanksShareEachHasItsPart) {
  ClusterSpec cluster = gpus({80, 80});
  cluster.ranks[1].gpu = cluster.ranks[0].gpu;
  const ClusterSpec shared = with_shared_gpus(cluster);
  EXPECT_EQ(budgets_of(shared, parse_budgets("-", "30GiB"), {})[1].gpu_bytes, 15 * kGiB);
}

// The issue's own: of a card of 24 GiB somewhat less is free.
TEST(Budgets, MoreThanIsFreeIsCutToWhatIsAndSaid) {
  ClusterSpec cluster = gpus({24, 12});
  cluster.ranks[0].gpu.free_bytes = 23 * kGiB;
  PlanRequest request;
  request.gpu_memory = parse_budgets("-", "24GiB,12GiB");
  const Plan plan = make_plan(llama_8b(), cluster, request);
  EXPECT_EQ(plan.budgets[0].gpu_bytes, 23 * kGiB);
  EXPECT_FALSE(plan.budgets[0].gpu_given);
  EXPECT_EQ(plan.budgets[0].gpu_asked_bytes, 24 * kGiB);
  EXPECT_EQ(plan.budgets[1], (RankBudget{12 * kGiB, 248 * kGiB, true, false, 0, 0}));
  const std::vector<std::string> said = cut_budgets(plan);
  ASSERT_EQ(said.size(), 1u);
  expect_says(said[0], {"--gpu-memory: 24.00 GiB asked for, the budget is 23.00 GiB", "(rank 0)"});
  expect_says(plan_table(plan, llama_8b(), cluster), {said[0], "budget of GPUs: --gpu-memory"});
  // The same bytes as without the flag: never more than is free.
  EXPECT_EQ(plan.budgets[0].gpu_bytes, budgets_of(cluster, {}, {})[0].gpu_bytes);
  cluster.ranks[0].gpu.free_bytes = 24 * kGiB;
  EXPECT_TRUE(cut_budgets(make_plan(llama_8b(), cluster, request)).empty());
}

TEST(Budgets, OfHostsTooAndRanksTogether) {
  PlanRequest request;
  request.host_memory = parse_budgets("-", "600GiB");
  const Plan plan = make_plan(llama_8b(), gpus({0, 0}), request);
  EXPECT_EQ(plan.budgets[1], (RankBudget{0, 248 * kGiB, false, false, 0, 300 * kGiB}));
  EXPECT_EQ(cut_budgets(plan),
            std::vector<std::string>{"--host-memory: 300.00 GiB asked for, the budget is 248.00 "
                                     "GiB, what is free less 1/32 (ranks 0, 1)"});
  // A part of what is free stays what it is.
  request.host_memory = parse_budgets("-", "1");
  EXPECT_EQ(make_plan(llama_8b(), gpus({0, 0}), request).budgets[1].host_bytes, 256 * kGiB);
}

TEST(Budgets, FarMoreThanTheCardHasIsASlipOfThePen) {
  ClusterSpec cluster = gpus({24, 12});
  cluster.ranks[0].gpu.free_bytes = cluster.ranks[1].gpu.free_bytes = 10 * kGiB;
  PlanRequest request;
  const auto said = [&](const char* text) {
    request.gpu_memory = parse_budgets("-", text);
    return refusal(llama_8b(), cluster, request);
  };
  expect_says(said("240GiB,12GiB"),
              {"--gpu-memory 240GiB is more than the GPU has: 24.00 GiB in all", "rank 0",
               "GPU 0 Made Up 24", "use --gpu-memory 24GiB or less"});
  expect_says(said("24GiB,24GiB"), {"more than the GPU has: 12.00 GiB", "rank 1"});
  expect_says(said("240GiB"), {"more than any GPU has: 24.00 GiB"});
  // One for all is meant for the greatest.
  EXPECT_EQ(said("24GiB"), "it was planned");
  EXPECT_EQ(said("27GiB,13GiB"), "it was planned");
  request.gpu_memory = parse_budgets("-", "1GiB,1GiB,1GiB");
  expect_says(refusal(llama_8b(), cluster, request), {"names 3 sizes, the job has 2 ranks"});
}

// The issue's own: 8B Q4_K_M in 3 GiB.
TEST(Budgets, An8BIn3GiBSpillsAndKeepsWithinIt) {
  PlanRequest request;
  request.gpu_memory = parse_budgets("-", "3GiB");
  request.choose_cpu_rows = true;
  const ModelSpec model = llama_8b();
  const ClusterSpec cluster = gpus({80});
  const Plan plan = make_plan(model, cluster, request);
  EXPECT_TRUE(plan.parts[0].gpu);
  EXPECT_TRUE(check_plan(plan, model).empty());
  EXPECT_LE(plan.rank_bytes(0, "", "gpu"), 3 * kGiB);
  EXPECT_GT(plan.rank_bytes(0, "", "gpu"), 3 * kGiB - 150 * kGiB / 1024);  // a half more, and slots
  EXPECT_GT(plan.rank_bytes(0, "weights", "host"), 2 * kGiB);
  const std::string table = plan_table(plan, model, cluster);
  expect_says(table, {"spilled: ", "ffn of 32 layers", "--gpu-memory", " 3.00", "for the "});
}

// With steps of 2048 tokens the activations alone would be too much.
TEST(Budgets, ShorterStepsWhereLongOnesLeaveNoRoom) {
  PlanRequest request;
  request.gpu_memory = parse_budgets("-", "3GiB");
  request.choose_cpu_rows = true;
  request.gpu_rows = 2048;
  request.limits.max_sequences = 1;
  request.limits.max_logit_rows = 1;
  const ClusterSpec cluster = testing::with_host_rates(gpus({80}));
  EXPECT_FALSE(make_plan(llama_8b(), cluster, request).parts[0].gpu);
  request.choose_gpu_rows = true;
  const Plan plan = make_plan(llama_8b(), cluster, request);
  EXPECT_TRUE(plan.parts[0].gpu);
  EXPECT_LE(plan.limits.max_rows, 1024);
  EXPECT_LE(plan.rank_bytes(0, "", "gpu"), 3 * kGiB);
  EXPECT_GT(plan.prediction.decode_tok_per_s, 20);
}

TEST(Budgets, TheFingerprintSeesThoseThatWereGiven) {
  Plan plan = make_plan(llama_8b(), gpus({80}), {});
  Plan other = plan;
  other.budgets[0].gpu_bytes -= 1;  // something else took a byte of what is free
  EXPECT_EQ(plan_fingerprint(other), plan_fingerprint(plan));
  plan.budgets[0].gpu_given = true;
  other.budgets[0].gpu_given = true;
  EXPECT_NE(plan_fingerprint(other), plan_fingerprint(plan));
}

}  // namespace
}  // namespace spillway

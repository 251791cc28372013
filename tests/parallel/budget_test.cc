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
  EXPECT_EQ(parse_budgets("-", "4096")[0].bytes, 4096);
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

TEST(Budgets, MoreThanIsFreeIsRefusedWithWhatIs) {
  PlanRequest request;
  request.gpu_memory = parse_budgets("-", "24GiB");
  std::string said = refusal(llama_8b(), gpus({20}), request);
  expect_says(said, {"--gpu-memory 24GiB is more than the 20.00 GiB that are free",
                     "GPU 0 Made Up 20", "use --gpu-memory 20GiB or less"});
  request.gpu_memory = parse_budgets("-", "20GiB");
  EXPECT_EQ(refusal(llama_8b(), gpus({20}), request), "it was planned");
  request.gpu_memory = parse_budgets("-", "1GiB,1GiB");
  expect_says(refusal(llama_8b(), gpus({20}), request), {"names 2 sizes, the job has 1 rank"});
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

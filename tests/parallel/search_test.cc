// Objectives, the order of devices, explanations, and what holds for any plan: random models on
// random clusters.
#include "parallel/search.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <random>

#include "kernels/core/error.h"
#include "parallel/explain.h"
#include "parallel/ledger.h"
#include "parallel/pins.h"
#include "parallel/planner.h"
#include "parallel/shortage.h"
#include "tests/parallel/made_up_gpus.h"
#include "tests/parallel/refusal.h"
#include "tests/support/cpu_seconds.h"

namespace spillway {
namespace {

using testing::expect_says;
using testing::gpus;
using testing::kGiB;
using testing::llama_405b;
using testing::llama_70b;
using testing::llama_8b;
using testing::measured_cluster;
using testing::refusal;
using testing::smollm2;
using testing::with_host_rates;

PlanRequest with_objective(Objective objective, const std::string& gpu_memory = "") {
  PlanRequest request;
  request.objective = objective;
  request.choose_cpu_rows = true;
  request.gpu_rows = 2048;
  request.choose_gpu_rows = true;
  request.device = DeviceChoice::kGpu;
  if (!gpu_memory.empty()) request.gpu_memory = parse_budgets("--gpu-memory", gpu_memory);
  return request;
}

TEST(Objectives, ThroughputTakesStagesInTurnsWhereSumsAreSlow) {
  ClusterSpec cluster = gpus({80, 80});
  cluster.ranks[1].host = "two";
  cluster.link = {30, 1, true};  // sums of many rows between hosts are slow
  PlanRequest request = with_objective(Objective::kThroughput);
  request.limits.max_sequences = 64;
  request.limits.max_logit_rows = 64;
  const Plan plan = make_plan(llama_8b(), cluster, request);
  EXPECT_EQ(plan.stages.size(), 2u);
  const Plan tp = [&] {
    PlanRequest pinned = request;
    pinned.tp = 2;
    return make_plan(llama_8b(), cluster, pinned);
  }();
  EXPECT_GT(plan.prediction.sequences_tok_per_s, tp.prediction.sequences_tok_per_s);
}

TEST(Objectives, ContextIsTheLongestThatFits) {
  const ModelSpec model = llama_8b();
  const ClusterSpec cluster = with_host_rates(gpus({80}));
  PlanRequest request = with_objective(Objective::kContext, "8GiB");
  const Plan plan = make_plan(model, cluster, request);
  EXPECT_GT(plan.kv.context, 20'000);
  EXPECT_LT(plan.kv.context, model.context_length);
  EXPECT_LE(shortage(plan).bytes, 0);
  EXPECT_GE(plan.kv.n_pages * plan.kv.page_tokens, plan.kv.context);
  request.objective = Objective::kLatency;
  request.context = plan.kv.context;
  EXPECT_EQ(refusal(model, cluster, request), "it was planned");
  request.context += plan.kv.page_tokens;
  EXPECT_NE(refusal(model, cluster, request), "it was planned");
}

// Eight ways to form stages, each with the ranks in two orders: one of the last has room.
TEST(Objectives, ContextIsTheLongestOfAllCandidates) {
  const ModelSpec model = llama_8b();
  ClusterSpec cluster = with_host_rates(gpus({24, 24, 12, 0}), 10, 30);
  for (RankSpec& rank : cluster.ranks) rank.memory_free_bytes = kGiB / 4;
  PlanRequest request = with_objective(Objective::kContext);
  request.device = DeviceChoice::kAuto;
  request.limits.max_sequences = request.limits.max_logit_rows = 1;
  const Plan plan = make_plan(model, cluster, request);
  request.objective = Objective::kLatency;
  request.context = plan.kv.context + plan.kv.page_tokens;
  EXPECT_NE(refusal(model, cluster, request), "it was planned") << plan.kv.context;
}

// Where memory is short other stages may be the best with shorter steps.
TEST(Objectives, NoFewerTokensAStepAreQuickerThanTheChosenOnes) {
  const ModelSpec model = llama_70b();
  ClusterSpec cluster = with_host_rates(gpus({23, 11}, 866), 20, 26);
  cluster.ranks[1].gpu.read_gb_per_s = 333;
  cluster.ranks[1].gpu.h2d_gb_per_s = 6.9;
  cluster.ranks[1].host_reads = {{4, 20, 13.6, 6.5}};
  PlanRequest request = with_objective(Objective::kLatency);
  request.limits.max_sequences = request.limits.max_logit_rows = 1;
  const Plan best = make_plan(model, cluster, request);
  const auto both_ms = [](const Plan& plan) { return plan_score(plan, Objective::kThroughput); };
  request.choose_gpu_rows = false;
  for (const int64_t rows : {2048, 1024, 512, 256}) {
    request.gpu_rows = rows;
    EXPECT_LE(both_ms(best), both_ms(make_plan(model, cluster, request)) * 1.03) << rows;
  }
}

TEST(Objectives, ContextShrinksTheCacheOnlyWhenAllowed) {
  const ModelSpec model = llama_8b();
  const ClusterSpec cluster = with_host_rates(gpus({80}));
  PlanRequest request = with_objective(Objective::kContext, "6GiB");
  const Plan f16 = make_plan(model, cluster, request);
  EXPECT_EQ(f16.kv.type, KvType::kF16);
  request.least_kv = KvType::kQ8_0;
  const Plan q8 = make_plan(model, cluster, request);
  EXPECT_EQ(q8.kv.type, KvType::kQ8_0);
  EXPECT_GT(q8.kv.context, f16.kv.context * 3 / 2);
  request.least_kv = KvType::kQ4_0;
  EXPECT_EQ(make_plan(model, cluster, request).kv.type, KvType::kQ4_0);
  // All of the training in f16: nothing is gained by less.
  request.gpu_memory.clear();
  const Plan all = make_plan(model, cluster, request);
  EXPECT_EQ(all.kv.context, model.context_length);
  EXPECT_EQ(all.kv.type, KvType::kF16);
}

TEST(Objectives, ASmallerCacheWhereTheOtherDoesNotFit) {
  PlanRequest request = with_objective(Objective::kLatency, "4GiB");
  request.context = 32768;
  const ClusterSpec cluster = with_host_rates(gpus({80}));
  expect_says(refusal(llama_8b(), cluster, request), {"rank 0 needs", "kv "});
  request.least_kv = KvType::kQ4_0;
  EXPECT_EQ(make_plan(llama_8b(), cluster, request).kv.type, KvType::kQ4_0);
}

TEST(Order, RanksWithGpusStandTogether) {
  // The rank without one gets a layer, and stands where it has not the head as well.
  const ClusterSpec cluster = gpus({30, 0, 30});
  const Plan plan = make_plan(llama_70b(), cluster, {});
  EXPECT_TRUE(check_plan(plan, llama_70b()).empty());
  EXPECT_TRUE(plan.parts[0].gpu && plan.parts[2].gpu);
  EXPECT_EQ(plan.parts[1].layers.size(), 1u);
  EXPECT_TRUE(plan.parts[1].output_rows.empty());
  const Plan four = make_plan(llama_70b(), gpus({80, 0, 80, 80}), {});
  EXPECT_TRUE(four.on_gpu(four.stages.back()));
  EXPECT_FALSE(four.parts[1].gpu);
  EXPECT_EQ(four.parts[1].layers.size(), 1u);
  PlanRequest request;
  request.split = parse_split("1:1+1");  // by rank as they are
  EXPECT_EQ(make_plan(llama_70b(), cluster, request).stages[0].ranks, (std::vector<int>{0, 1}));
  request.order = {0, 2, 1};
  EXPECT_EQ(make_plan(llama_70b(), cluster, request).stages[0].ranks, (std::vector<int>{0, 2}));
}

TEST(Explain, SaysWhatBindsAndWhatMoreWouldBring) {
  const ModelSpec model = llama_8b();
  const ClusterSpec cluster = with_host_rates(gpus({80}));
  const PlanRequest request = with_objective(Objective::kLatency, "3GiB");
  const Planned planned = plan_and_others(model, cluster, request);
  const Explanation e = explain(planned, model, cluster, request);
  EXPECT_TRUE(e.binding.binds);
  EXPECT_EQ(e.binding.place, "gpu");
  EXPECT_EQ(e.binding.budget_bytes, 3 * kGiB);
  EXPECT_EQ(e.binding.used_bytes, planned.plan.rank_bytes(0, "", "gpu"));
  ASSERT_EQ(e.more.size(), 2u);
  PlanRequest more = request;
  more.gpu_memory = parse_budgets("--gpu-memory", "4GiB");
  EXPECT_NEAR(e.more[0].decode_tok_per_s,
              make_plan(model, cluster, more).prediction.decode_tok_per_s -
                  planned.plan.prediction.decode_tok_per_s,
              1e-9);
  EXPECT_GT(e.more[0].decode_tok_per_s, 1);
  EXPECT_EQ(e.more[1].decode_tok_per_s, 0);  // the host holds all of it
  EXPECT_GE(e.alternatives.size(), 3u);
  for (size_t i = 1; i < e.alternatives.size(); ++i) {
    EXPECT_GE(e.alternatives[i - 1].decode_tok_per_s, e.alternatives[i].decode_tok_per_s);
  }
  const std::string text = explanation_text(e, planned.plan);
  expect_says(text, {"bound by rank 0's GPU: ", " of 3.00 GiB", "one more GiB on every GPU: +",
                     "one more GiB of host memory: nothing", "else:\n", "streamed"});
}

TEST(Explain, NothingBindsWhereAllIsThere) {
  const ClusterSpec cluster = gpus({80});
  const Planned planned = plan_and_others(smollm2(), cluster, {});
  const Explanation e = explain(planned, smollm2(), cluster, {});
  EXPECT_FALSE(e.binding.binds);
  EXPECT_EQ(e.more[0].decode_tok_per_s, 0);
  expect_says(explanation_text(e, planned.plan), {"not bound by memory; fullest is rank 0's "});
}

TEST(Explain, OfSeveralSequencesWhatTheyGainTogether) {
  const ModelSpec model = llama_8b();
  const ClusterSpec cluster = with_host_rates(gpus({80}));
  PlanRequest request = with_objective(Objective::kThroughput, "4GiB");
  request.limits.max_sequences = request.limits.max_logit_rows = 8;
  const Planned planned = plan_and_others(model, cluster, request);
  const Explanation e = explain(planned, model, cluster, request);
  EXPECT_GT(e.more[0].sequences_tok_per_s, 0.1 * planned.plan.prediction.sequences_tok_per_s);
  expect_says(explanation_text(e, planned.plan), {" tok/s together", ", together "});
}

TEST(Explain, ALongerContextIsWhatMoreBrings) {
  const ModelSpec model = llama_8b();
  const ClusterSpec cluster = with_host_rates(gpus({80}));
  const PlanRequest request = with_objective(Objective::kContext, "6GiB");
  const Planned planned = plan_and_others(model, cluster, request);
  const Explanation e = explain(planned, model, cluster, request);
  // 128 KiB a token in f16.
  EXPECT_NEAR(static_cast<double>(e.more[0].context), 8192, 64);
}

TEST(Pins, OfAPlanMakeItAgain) {
  const ModelSpec model = llama_70b();
  const ClusterSpec cluster = with_host_rates(gpus({24, 24, 0}));
  PlanRequest request = with_objective(Objective::kLatency, "12GiB");
  request.device = DeviceChoice::kAuto;
  const Plan plan = make_plan(model, cluster, request);
  PlanRequest pins = pins_of(plan);
  pins.gpu_memory = request.gpu_memory;
  const Plan again = make_plan(model, cluster, pins);
  ASSERT_EQ(again.parts.size(), plan.parts.size());
  for (size_t r = 0; r < plan.parts.size(); ++r) {
    EXPECT_EQ(again.parts[r].layers, plan.parts[r].layers) << r;
    EXPECT_EQ(again.parts[r].gpu, plan.parts[r].gpu) << r;
    EXPECT_EQ(again.rank_bytes(static_cast<int>(r)), plan.rank_bytes(static_cast<int>(r))) << r;
  }
  EXPECT_NEAR(again.prediction.total_ms, plan.prediction.total_ms, 1e-9);
}

// Shares that were divided by their sum once are not divided again: their last bits would change.
TEST(Pins, OfAPlanOfUnevenSharesHaveItsFingerprint) {
  const ModelSpec model = llama_8b();
  ClusterSpec cluster = with_host_rates(gpus({24, 24, 24, 24, 24}));
  const double rates[] = {866, 933, 333, 1650, 4000};
  for (RankSpec& rank : cluster.ranks) rank.gpu.read_gb_per_s = rates[rank.rank];
  PlanRequest request;
  request.device = DeviceChoice::kGpu;
  for (const int tp : {0, 5}) {
    request.tp = tp;
    const Plan plan = make_plan(model, cluster, request);
    PlanRequest pins = pins_of(plan);
    pins.split = parse_split(split_text(pins.split));
    EXPECT_EQ(plan_fingerprint(make_plan(model, cluster, pins)), plan_fingerprint(plan)) << tp;
  }
}

TEST(Pins, GpuLayersAreTheLastOnes) {
  const ModelSpec model = llama_8b();
  const ClusterSpec cluster = with_host_rates(gpus({80}));
  PlanRequest request;
  request.gpu_layers = 20;
  const Plan plan = make_plan(model, cluster, request);
  for (int i = 0; i < 32; ++i) {
    const LayerPart& layer = plan.parts[0].layers[i];
    EXPECT_EQ(layer.feed_forward, i < 12 ? Place::kCpu : Place::kResident) << i;
    EXPECT_EQ(layer.attention, i < 12 ? Place::kStreamed : Place::kResident) << i;
  }
  request.gpu_layers = 99;
  EXPECT_EQ(spill_text(make_plan(model, cluster, request)), "");
  request.gpu_layers = 0;
  EXPECT_FALSE(make_plan(model, cluster, request).parts[0].gpu);
  request.gpu_layers = 5;
  expect_says(refusal(model, measured_cluster(1), request), {"no rank has a GPU", "-ngl 0"});
  expect_says(refusal(model, gpus({80, 0}), request), {"some ranks have no GPU", "--layers"});
}

TEST(Pins, LayersSharesAndOrderAreKept) {
  const ModelSpec model = smollm2();
  PlanRequest request;
  request.layers = {20, 7, 3};
  const Plan plan = make_plan(model, measured_cluster(3), request);
  EXPECT_EQ(plan_title(plan), "TP1 x PP3, layers 20+7+3");
  request.layers.clear();
  request.shares = {3, 1};
  request.tp = 2;
  EXPECT_EQ(plan_title(make_plan(model, measured_cluster(2), request)), "TP2 (3:1)");
  request.tp = 1;
  EXPECT_EQ(plan_title(make_plan(model, measured_cluster(2), request)), "TP1 x PP2, layers 23+7");
  // Also where other cuts would be quicker.
  request.shares = {2, 1};
  const Plan two = make_plan(llama_70b(), with_host_rates(gpus({24, 12})), request);
  EXPECT_EQ(plan_title(two), "TP1 x PP2, layers 53+27");
}

TEST(Pins, WhatContradictsIsRefusedWithWhatWouldDo) {
  const ModelSpec model = smollm2();
  const ClusterSpec three = measured_cluster(3);
  const auto said = [&](const std::function<void(PlanRequest&)>& set) {
    PlanRequest request;
    set(request);
    return refusal(model, three, request);
  };
  expect_says(said([](auto& r) {
                r.layers = {20, 7};
              }),
              {"add up to 27, the model has 30", "use --layers 15,15"});
  expect_says(said([](auto& r) {
                r.layers = {10, 10, 5, 5};
              }),
              {"4 stages for 3 ranks", "use --layers 10,10,10"});
  expect_says(said([](auto& r) { r.layers = {30, 0}; }), {"a stage without layers"});
  expect_says(said([](auto& r) {
                r.shares = {1, 1};
              }),
              {"-ts names 2 shares, the job has 3 ranks", "use -ts 1,1,1"});
  expect_says(said([](auto& r) { r.shares = {1, 0, 1}; }), {"not above 0"});
  expect_says(said([](auto& r) { r.shares = {1e308, 1e308, 1e308}; }), {"beyond 1000000000"});
  expect_says(said([](auto& r) {
                r.layers = {INT64_MAX, INT64_MAX};
              }),
              {"add up to 9223372036854775807, the model has 30", "use --layers 15,15"});
  expect_says(said([](auto& r) { r.order = {1, 0, 2}; }), {"rank 0 leads", "--order 0,1,2"});
  expect_says(said([](auto& r) { r.order = {0, 2, 2}; }), {"each of the job's 3 ranks once"});
  expect_says(said([](auto& r) {
                r.split = parse_split("1:1+1");
                r.layers = {15, 15};
              }),
              {"--layers beside --split"});
}

// What a search looks at is what the lines of the whole ledger add up to.
void expect_same_sums(const Plan& plan, const ModelSpec& model, const ClusterSpec& cluster) {
  Plan sums = plan;
  write_ledger(sums, model, cluster, LedgerLines::kSums);
  EXPECT_LT(sums.ledger.size(), 16 * plan.parts.size());
  for (const RankPart& part : plan.parts) {
    for (const char* name : {"", "weights", "kv", "activations", "program"}) {
      for (const char* place : {"", "gpu", "host", "disk"}) {
        EXPECT_EQ(sums.rank_bytes(part.rank, name, place), plan.rank_bytes(part.rank, name, place))
            << "rank " << part.rank << " " << name << " " << place;
      }
    }
  }
}

// The bytes of the ledger are within every budget, plans are sound and the same every time, and a
// plan's own flags lead back to it.
TEST(AnyPlan, IsSoundWithinItsBudgetsAndTheSameEveryTime) {
  std::mt19937 random(7);
  const auto pick = [&random](std::initializer_list<int64_t> of) {
    return *(of.begin() + static_cast<int64_t>(random() % of.size()));
  };
  int planned_ones = 0;
  int spilled_ones = 0;
  for (int i = 0; i < 150; ++i) {
    const int64_t heads = pick({8, 16, 32});
    const int64_t kv_heads = pick({1, 2, 8});
    const int64_t dim = heads * 128;
    const ModelSpec model = testing::model_of(
        {"random", pick({1, 8, 24, 40, 60}), dim, heads, kv_heads, 128, pick({3, 4, 7}) * 256 * 4,
         pick({1000, 32000}), 8192, QuantType::kQ4_K, random() % 2 == 0});
    std::vector<int64_t> gib;
    const int64_t ranks = pick({1, 1, 2, 3, 5});
    for (int64_t r = 0; r < ranks; ++r) gib.push_back(pick({0, 1, 2, 2, 3}));
    ClusterSpec cluster = with_host_rates(gpus(gib), static_cast<double>(pick({10, 84})),
                                          static_cast<double>(pick({5, 52})));
    for (RankSpec& rank : cluster.ranks) rank.memory_free_bytes = pick({1, 2, 6}) * kGiB;
    PlanRequest request = with_objective(static_cast<Objective>(random() % kObjectives));
    const bool all_gpus = std::count(gib.begin(), gib.end(), 0) == 0;
    if (!all_gpus || random() % 3 == 0) request.device = DeviceChoice::kAuto;
    request.gpu_rows = pick({64, 512});
    request.limits.max_rows = request.gpu_rows;
    request.limits.max_sequences = pick({1, 4});
    if (random() % 3 == 0) request.gpu_memory = {{0, 0.25 * static_cast<double>(pick({2, 3, 4}))}};
    Plan plan;
    try {
      plan = make_plan(model, cluster, request);
    } catch (const Error&) {
      continue;
    }
    ++planned_ones;
    spilled_ones += spill_text(plan).empty() ? 0 : 1;
    EXPECT_EQ(check_plan(plan, model), std::vector<std::string>{}) << i;
    EXPECT_LE(shortage(plan).bytes, 0) << i;
    expect_same_sums(plan, model, cluster);
    for (const RankPart& part : plan.parts) {
      const RankSpec& rank = cluster.ranks[static_cast<size_t>(part.rank)];
      EXPECT_LE(plan.rank_bytes(part.rank, "", "gpu"), rank.gpu.free_bytes) << i;
      EXPECT_LE(plan.rank_bytes(part.rank, "", "host"), rank.memory_free_bytes) << i;
    }
    EXPECT_EQ(plan_fingerprint(make_plan(model, cluster, request)), plan_fingerprint(plan)) << i;
  }
  std::printf("%d of 150 can be planned, %d spill\n", planned_ones, spilled_ones);
  EXPECT_GT(planned_ones, 75);
  EXPECT_GT(spilled_ones, 10);
}

// 126 layers on 16 devices. The limit is generous: docs/bench/planning.md has what it takes.
TEST(AnyPlan, OfALargeModelOnManyDevicesIsThereInASecond) {
  const ModelSpec model = llama_405b();
  const auto cpu_ms = [] { return 1e3 * testing::cpu_seconds(); };
  // Of two hosts, no two ranks of which are alike.
  ClusterSpec motley = with_host_rates(gpus(std::vector<int64_t>(16, 16)));
  for (RankSpec& rank : motley.ranks) {
    rank.host = rank.rank < 8 ? "one" : "two";
    rank.local_size = 8;
    rank.gpu.free_bytes -= rank.rank * (int64_t{400} << 20);
    rank.gpu.read_gb_per_s += 150 * (rank.rank % 7);
    rank.read_gb_per_s += rank.rank;
    rank.host_reads[0].gb_per_s += rank.rank;
  }
  const std::pair<const char*, ClusterSpec> clusters[] = {
      {"16 x 80 GiB", with_host_rates(gpus(std::vector<int64_t>(16, 80)))},
      {"16 x 12 GiB", with_host_rates(gpus(std::vector<int64_t>(16, 12)))},
      {"16 x 10 to 16 GiB", motley}};
  for (const auto& [name, cluster] : clusters) {
    for (int i = 0; i < kObjectives; ++i) {
      PlanRequest request = with_objective(static_cast<Objective>(i));
      const double start = cpu_ms();
      const Planned planned = plan_and_others(model, cluster, request);
      const double plan_ms = cpu_ms() - start;
      const Explanation e = explain(planned, model, cluster, request);
      std::printf("405B, %s, %-10s: planned in %.0f ms, explained in %.0f ms: %s, %s\n", name,
                  objective_name(request.objective), plan_ms, cpu_ms() - start - plan_ms,
                  plan_title(planned.plan).c_str(), spill_text(planned.plan).c_str());
      EXPECT_LT(plan_ms, 5000);
      EXPECT_FALSE(e.alternatives.empty());
      EXPECT_TRUE(check_plan(planned.plan, model).empty());
    }
  }
}

}  // namespace
}  // namespace spillway

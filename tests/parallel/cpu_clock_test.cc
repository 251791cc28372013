// What a step takes on CPUs whose ranks have measured what layers reach, by hand.
#include "parallel/cpu_clock.h"

#include <gtest/gtest.h>

#include <string>

#include "kernels/core/packed_matrix.h"
#include "parallel/cost.h"
#include "parallel/group_sum.h"
#include "parallel/planner.h"
#include "parallel/stage_clock.h"
#include "tests/parallel/made_up_gpus.h"
#include "tests/parallel/model_shapes.h"

namespace spillway {
namespace {

using testing::measured_cluster;
using testing::smollm2;

constexpr QuantType kQ4 = QuantType::kQ4_1;
constexpr QuantType kQ8 = QuantType::kQ8_0;

CpuRates rates_of_one() {
  CpuRates rates;
  rates.threads = 1;
  rates.products = {{kQ4, 10, 100}, {kQ8, 20, 200}};
  rates.attend_gb_per_s = 5;
  rates.attend_gop_per_s = 30;
  rates.row_value_ns = 2;
  rates.value_ns = 0.5;
  rates.layer_us = 8;
  return rates;
}

// Two ranks of one host, one thread each; while both are at work each takes 1.6 times as long.
CpuRates rates_of_two() {
  CpuRates rates = rates_of_one();
  rates.threads = 2;
  for (ProductRate& product : rates.products) {
    product.row_gb_per_s /= 1.6;
    product.gop_per_s /= 1.6;
  }
  rates.attend_gb_per_s /= 1.6;
  rates.attend_gop_per_s /= 1.6;
  rates.row_value_ns *= 1.6;
  rates.value_ns *= 1.6;
  rates.layer_us *= 1.6;
  return rates;
}

ClusterSpec cpus(int n) {
  ClusterSpec cluster = measured_cluster(n, 1.0);  // rates that nobody must use
  for (RankSpec& rank : cluster.ranks) {
    rank.host = "one";
    rank.matrix_gop_per_s = 1;
    rank.cpu_alone = rates_of_one();
    if (n > 1) rank.cpu_together = rates_of_two();
  }
  cluster.link = {0.0, 1e9, true};
  return cluster;
}

// A host each.
ClusterSpec cpus_apart(int n) {
  ClusterSpec cluster = cpus(n);
  for (RankSpec& rank : cluster.ranks) {
    rank.host = "host " + std::to_string(rank.rank);
    rank.cpu_together = {};
  }
  return cluster;
}

Plan plan_of(const ClusterSpec& cluster, const std::string& split, int64_t max_rows = 512) {
  PlanRequest request;
  request.split = parse_split(split);
  request.context = 512;
  request.limits.max_rows = max_rows;
  return make_plan(smollm2(), cluster, request);
}

TEST(CpuClock, AMatrixIsReadOrMultiplied) {
  const CpuRates rates = rates_of_one();
  const double bytes = static_cast<double>(packed_bytes(kQ4, 1024, 512));
  EXPECT_DOUBLE_EQ(cpu_matrix_ms(rates, kQ4, 1024, 512, 1), bytes / 10e6);
  EXPECT_DOUBLE_EQ(cpu_matrix_ms(rates, kQ4, 1024, 512, 64), 1024.0 * 512 * 64 / 100e6);
  EXPECT_EQ(cpu_matrix_ms(rates, kQ4, 0, 512, 1), 0);
  // Q5_0 was not measured: 5.5 bits are nearer to Q4_1's 5 than to 8.5; F32 is nearer to Q8_0.
  EXPECT_DOUBLE_EQ(cpu_matrix_ms(rates, QuantType::kQ5_0, 1024, 512, 64),
                   cpu_matrix_ms(rates, kQ4, 1024, 512, 64));
  EXPECT_DOUBLE_EQ(cpu_matrix_ms(rates, QuantType::kF32, 64, 64, 1), 64 * 64 * 4 / 20e6);
}

TEST(CpuClock, TypesOfAModelRise) {
  ModelSpec model = smollm2();
  EXPECT_EQ(matrix_types(model), (std::vector{kQ4, kQ8}));
  model.layers[3].down.type = QuantType::kF32;
  model.output = {QuantType::kQ6_K, 10, 256};
  EXPECT_EQ(matrix_types(model), (std::vector{QuantType::kF32, kQ4, kQ8, QuantType::kQ6_K}));
}

TEST(CpuClock, DecodeOfOneRank) {
  const ModelSpec model = smollm2();
  const ClusterSpec cluster = cpus(1);
  const Prediction p = predict(plan_of(cluster, "1"), model, cluster, 100);
  double layer = 0;
  const LayerSpec& of = model.layers[0];
  for (const MatrixSpec& m : {of.q, of.k, of.v, of.o, of.gate, of.up, of.down}) {
    layer += static_cast<double>(packed_bytes(m.type, m.rows, m.cols));
  }
  const double head = static_cast<double>(packed_bytes(kQ8, 49152, 576));
  EXPECT_NEAR(p.matrix_ms, 30 * layer / 10e6 + head / 20e6, 1e-9);
  EXPECT_NEAR(p.attention_ms, 30 * 2.0 * 100 * 3 * 64 * 2 / 5e6, 1e-9);
  EXPECT_NEAR(p.launch_ms, 30 * (0.008 + 2e-6 * (576 + 1536)), 1e-9);
  EXPECT_NEAR(p.total_ms, p.matrix_ms + p.attention_ms + p.launch_ms, 1e-9);
}

TEST(CpuClock, PrefillOfOneRank) {
  const ModelSpec model = smollm2();
  const ClusterSpec cluster = cpus(1);
  const double products = 30.0 * 576 * (64 * (9 + 3 + 3 + 9) + 3 * 1536) * 512;
  const double attention = 30.0 * 2 * (512 * 513 / 2.0) * 9 * 64;
  const double head = static_cast<double>(packed_bytes(kQ8, 49152, 576));
  const double ms = products / 100e6 + attention / 30e6 + head / 20e6 +
                    30 * (0.008 + 0.5e-6 * 512 * (576 + 1536));
  EXPECT_NEAR(512e3 / predict(plan_of(cluster, "1"), model, cluster, 0).prefill_tok_per_s, ms,
              1e-6);
}

TEST(CpuClock, RanksOfAGroupAreSlowerTogetherAndStagesInTurnAreNot) {
  const ModelSpec model = smollm2();
  const ClusterSpec cluster = cpus(2);
  const ClusterSpec apart = cpus_apart(2);
  const auto predicted = [&](const ClusterSpec& of, const char* split) {
    return predict(plan_of(of, split), model, of, 0);
  };
  const Prediction shared = predicted(cluster, "1:1");
  const Prediction alone = predicted(apart, "1:1");
  // Feed-forward's halves are equal, attention's 2:1 of its heads.
  EXPECT_GT(shared.total_ms, alone.total_ms * 1.4);
  EXPECT_LT(shared.total_ms, alone.total_ms * 1.6);
  EXPECT_LT(shared.prefill_tok_per_s, alone.prefill_tok_per_s / 1.4);
  EXPECT_NEAR(predicted(cluster, "1+1").total_ms, predicted(apart, "1+1").total_ms, 1e-9);
  EXPECT_NEAR(predicted(cluster, "1+1").prefill_tok_per_s,
              predicted(apart, "1+1").prefill_tok_per_s, 1e-9);
}

TEST(CpuClock, StepsOfOnePromptKeepAllStagesBusy) {
  const ModelSpec model = smollm2();
  const ClusterSpec cluster = cpus(2);
  const ClusterSpec apart = cpus_apart(2);
  const auto prefill = [&](const ClusterSpec& of) {
    return predict(plan_of(of, "1+1", 64), model, of, 0).prefill_tok_per_s;
  };
  EXPECT_NEAR(prefill(cluster), prefill(apart) / 1.6, prefill(apart) * 0.01);
}

TEST(CpuClock, SumsOfARowAreAsSlowAsMeasured) {
  ClusterSpec cluster = cpus(2);
  cluster.link = {1, 2, true, 9};
  // 512 doubles are half of 8 KiB; 100 rows of 576 are 452 608 bytes beyond it.
  EXPECT_DOUBLE_EQ(group_sum_ms(cluster, {0, 1}, false, 1, 512), 0.005);
  EXPECT_DOUBLE_EQ(group_sum_ms(cluster, {0, 1}, false, 1, 1024), 0.009);
  EXPECT_NEAR(group_sum_ms(cluster, {0, 1}, false, 100, 576), 0.009 + 452608 / 2e6, 1e-12);
  const Plan plan = plan_of(cluster, "1+1");
  const StageClock clock(plan, smollm2(), cluster);
  EXPECT_NEAR(clock.hop_ms(1, 1), 0.001 + 0.008 * 576 * 4 / 8192, 1e-12);
  EXPECT_NEAR(clock.round_trip_ms(), 0.002, 1e-12);
}

TEST(CpuClock, OneRankWithoutRatesAndAllCountAsBefore) {
  const ModelSpec model = smollm2();
  ClusterSpec cluster = cpus(2);
  cluster.ranks[1].cpu_alone = {};
  ClusterSpec old = cluster;
  for (RankSpec& rank : old.ranks) rank.cpu_alone = rank.cpu_together = {};
  EXPECT_NEAR(predict(plan_of(cluster, "1:1"), model, cluster, 10).total_ms,
              predict(plan_of(old, "1:1"), model, old, 10).total_ms, 1e-9);
}

TEST(CpuClock, LikeRanksGetTheMedianAndFactsTheRates) {
  ClusterSpec cluster = cpus(3);
  cluster.ranks[0].cpu_alone.products[1].gop_per_s = 300;
  cluster.ranks[1].cpu_alone.products[1].gop_per_s = 100;
  cluster.ranks[1].cpu_together.layer_us = 1;
  const ClusterSpec equal = like_ranks_equal(cluster);
  for (const RankSpec& rank : equal.ranks) {
    EXPECT_EQ(rank.cpu_alone, rates_of_one());
    EXPECT_EQ(rank.cpu_together, rates_of_two());
  }
  EXPECT_EQ(with_rates({}, cluster.ranks[0]).cpu_together, rates_of_two());
  cluster.ranks[2].cpu_alone.products.pop_back();  // of other types: no median with them
  EXPECT_EQ(like_ranks_equal(cluster).ranks[2].cpu_alone.products.size(), 1U);
}

}  // namespace
}  // namespace spillway

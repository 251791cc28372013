// What a sweep compares, which it runs, and what it tells.
#include <gtest/gtest.h>

#include <set>

#include "launch/sweep_cases.h"
#include "launch/sweep_report.h"
#include "launch/sweep_rounds.h"
#include "parallel/spill.h"
#include "tests/parallel/model_shapes.h"

namespace spillway {
namespace {

using testing::measured_cluster;
using testing::smollm2;

ClusterSpec with_gpus(int n) {
  ClusterSpec cluster = measured_cluster(n);
  for (RankSpec& rank : cluster.ranks) {
    rank.gpu.name = "Made Up 9000";
    rank.gpu.uuid = "GPU-" + std::to_string(rank.rank);
    rank.gpu.total_bytes = int64_t{80} << 30;
    rank.gpu.free_bytes = int64_t{79} << 30;
    rank.gpu.read_gb_per_s = 3000;
  }
  return cluster;
}

PlanRequest base() {
  PlanRequest request;
  request.context = 512;
  return request;
}

TEST(SpreadPins, EvenlyOverTheLayers) {
  const auto layers = [](double share) {
    std::vector<int64_t> out;
    for (const PlacePin& pin : spread_pins(8, share, Place::kCpu, 0.5)) {
      EXPECT_EQ(pin.layers.size(), 1);
      EXPECT_FALSE(pin.attention);
      out.push_back(pin.layers.begin);
    }
    return out;
  };
  EXPECT_EQ(layers(0), std::vector<int64_t>());
  EXPECT_EQ(layers(0.25), (std::vector<int64_t>{3, 7}));
  EXPECT_EQ(layers(0.5), (std::vector<int64_t>{1, 3, 5, 7}));
  EXPECT_EQ(layers(1).size(), 8u);
  // Thirds do not add up exactly.
  EXPECT_EQ(spread_pins(9, 1.0 / 3, Place::kCpu, 0.5).size(), 3u);
}

TEST(SweepCases, EveryCombinationThatFits) {
  SweepRequest request;
  request.base = base();
  request.splits = all_splits(smollm2(), 2, false);
  request.kv_types = {KvType::kF16, KvType::kQ8_0};
  request.spilled = {0, 0.5};
  const SweepCases all = sweep_cases(smollm2(), with_gpus(2), request);
  // Splits 1:1 and 1+1, two caches, all resident or half of it in three ways.
  EXPECT_EQ(all.cases.size(), 2u * 2u * 4u) << (all.refused.empty() ? "" : all.refused[0]);
  std::set<uint64_t> plans;
  std::set<std::string> names;
  for (const SweepCase& one : all.cases) {
    EXPECT_TRUE(check_plan(one.plan, smollm2()).empty());
    plans.insert(plan_fingerprint(one.plan));
    names.insert(one.name);
    EXPECT_GT(one.on_gpu, 0.5);
    EXPECT_EQ(one.on_gpu < 1, one.name.find("50 %") != std::string::npos) << one.name;
  }
  EXPECT_EQ(plans.size(), all.cases.size());
  EXPECT_EQ(names.size(), all.cases.size());
}

TEST(SweepCases, WhatDoesNotFitIsSaid) {
  ClusterSpec cluster = with_gpus(1);
  cluster.ranks[0].memory_free_bytes = int64_t{64} << 20;
  SweepRequest request;
  request.base = base();
  request.base.device = DeviceChoice::kCpu;
  request.splits = {{{0, {1}}}};
  const SweepCases all = sweep_cases(smollm2(), cluster, request);
  EXPECT_TRUE(all.cases.empty());
  ASSERT_EQ(all.refused.size(), 1u);
  EXPECT_NE(all.refused[0].find("rank 0 needs"), std::string::npos) << all.refused[0];
}

TEST(OffloadCases, FromNoneToAll) {
  const SweepCases all = offload_cases(smollm2(), with_gpus(1), base(), 4);
  ASSERT_EQ(all.cases.size(), 6u) << (all.refused.empty() ? "" : all.refused[0]);
  EXPECT_EQ(all.cases[0].name, "TP1, all on the CPU");
  EXPECT_FALSE(all.cases[0].plan.uses_gpu());
  EXPECT_EQ(all.cases[0].on_gpu, 0);
  for (size_t i = 1; i < all.cases.size(); ++i) {
    EXPECT_TRUE(all.cases[i].plan.uses_gpu());
    EXPECT_GT(all.cases[i].on_gpu, all.cases[i - 1].on_gpu);
  }
  EXPECT_EQ(all.cases.back().on_gpu, 1);
}

TEST(ChooseCases, TheBestAndEvenlySpacedControls) {
  std::vector<SweepCase> cases(9);
  for (size_t i = 0; i < cases.size(); ++i) {
    cases[i].name = std::to_string(i);
    cases[i].plan.prediction.decode_tok_per_s = static_cast<double>((i * 5) % 9);
  }
  const auto rates = [&cases](int64_t best, int64_t controls) {
    std::vector<int> out;
    for (const SweepCase& one : choose_cases(cases, best, controls)) {
      out.push_back(static_cast<int>(one.plan.prediction.decode_tok_per_s) *
                    (one.control ? -1 : 1));
    }
    return out;
  };
  EXPECT_EQ(rates(3, 3), (std::vector<int>{8, 7, 6, -5, -3, 0}));
  EXPECT_EQ(rates(2, 1), (std::vector<int>{8, 7, 0}));
  EXPECT_EQ(rates(20, 5).size(), 9u);
  EXPECT_EQ(choose_cases({}, 3, 3).size(), 0u);
}

TEST(RankCorrelation, ByHand) {
  EXPECT_DOUBLE_EQ(rank_correlation({1, 2, 3}, {10, 20, 30}), 1);
  EXPECT_DOUBLE_EQ(rank_correlation({1, 2, 3}, {9, 5, 1}), -1);
  // Ranks 0 1 2 3 and 0 2 1 3: 1 - 6 * 2 / (4 * 15).
  EXPECT_DOUBLE_EQ(rank_correlation({1, 2, 3, 4}, {1, 3, 2, 4}), 0.8);
  EXPECT_DOUBLE_EQ(rank_correlation({1, 1}, {1, 2}), 0);
  EXPECT_DOUBLE_EQ(rank_correlation({1}, {1}), 0);
}

std::vector<SweepRow> rows() {
  SweepRow fast;
  fast.name = "TP2, \"f16\" <cache>";
  fast.on_gpu = 1;
  fast.predicted_decode = 100;
  fast.decode = measured_of({110});
  fast.ledger_gpu_bytes = int64_t{4} << 30;
  fast.measured_gpu_bytes = int64_t{5} << 30;
  SweepRow slow;
  slow.name = "TP1";
  slow.control = true;
  slow.on_gpu = 0.5;
  slow.predicted_decode = 50;
  slow.decode = measured_of({40});
  SweepRow failed;
  failed.name = "PP2";
  failed.predicted_decode = 30;
  failed.failed = "no memory";
  return {fast, slow, failed};
}

TEST(SweepReport, TableCsvAndJson) {
  const std::string table = sweep_table(rows());
  for (const char* part : {"+10.0 %", "-20.0 %", "+25.0 %", "* TP1", "not measured: no memory",
                           "median error 15.0 %, greatest 20.0 %, rank correlation 1.000"}) {
    EXPECT_NE(table.find(part), std::string::npos) << part << " in\n" << table;
  }
  const std::string csv = sweep_csv(rows());
  EXPECT_NE(csv.find("\"TP2, \"\"f16\"\" "
                     "<cache>\",0,1,110,100,0,0,4294967296,5368709120,\"\",1,110,110,0,0\n"),
            std::string::npos)
      << csv;
  const auto json = sweep_json(rows());
  ASSERT_EQ(json.size(), 3u);
  EXPECT_EQ(json[1]["decode_tok_per_s"], 40);
  EXPECT_EQ(json[1]["control"], true);
}

TEST(SweepReport, RangesOfSeveralRuns) {
  std::vector<SweepRow> all = rows();
  all[0].decode = measured_of({110, 90, 130});
  all[0].prefill = measured_of({1000, 1200});
  EXPECT_EQ(all[0].decode.median, 110);
  EXPECT_EQ(all[0].prefill.median, 1100);
  const std::string table = sweep_table(all);
  EXPECT_NE(table.find("    3 runs: decode 90.00 to 130, prefill 1000 to 1200\n"),
            std::string::npos)
      << table;
  EXPECT_NE(sweep_csv(all).find(",3,90,130,1000,1200\n"), std::string::npos) << sweep_csv(all);
  EXPECT_EQ(sweep_json(all)[0]["decode_runs"], (std::vector<double>{110, 90, 130}));
  for (const bool offload : {false, true}) {
    const std::string svg = sweep_svg(all, "model", offload);
    EXPECT_NE(svg.find("110.00 tok/s (90.00 to 130.00), predicted 100.00"), std::string::npos);
    const auto lines = [](const std::string& text) {
      int n = 0;
      for (size_t at = 0; (at = text.find("<line", at)) != std::string::npos; ++at) ++n;
      return n;
    };
    EXPECT_EQ(lines(svg) - lines(sweep_svg(rows(), "model", offload)), 3);
  }
}

TEST(SweepRounds, OneRunARoundWhereLoadingIsCheap) {
  const auto rounds = [](int runs, int asked, double load_s) {
    SweepRounds of(runs, asked);
    std::vector<int> out;
    while (of.more()) {
      out.push_back(of.runs_now());
      of.finish(load_s, 1.0);
    }
    return out;
  };
  EXPECT_EQ(rounds(3, 0, 0.5), (std::vector<int>{1, 1, 1}));
  EXPECT_EQ(rounds(3, 0, 5), (std::vector<int>{1, 2}));
  EXPECT_EQ(rounds(1, 0, 5), (std::vector<int>{1}));
  EXPECT_EQ(rounds(3, 1, 0.5), (std::vector<int>{3}));
  EXPECT_EQ(rounds(5, 2, 5), (std::vector<int>{3, 2}));
  EXPECT_EQ(rounds(3, 7, 5), (std::vector<int>{1, 1, 1}));
}

// The longest line, and how many there are.
std::pair<size_t, size_t> shape_of(const std::string& text) {
  size_t longest = 0;
  size_t lines = 0;
  for (size_t at = 0; at < text.size(); ++lines) {
    const size_t end = text.find('\n', at);
    longest = std::max(longest, end - at);
    at = end + 1;
  }
  return {longest, lines};
}

TEST(SweepReport, TablesFitATerminal) {
  std::vector<SweepRow> all = rows();
  EXPECT_LE(shape_of(sweep_table(all)).first, 100u) << sweep_table(all);
  for (SweepRow& row : all) row.on_gpu = 0;
  all[0].ledger_gpu_bytes = 0;
  const std::string table = sweep_table(all);
  EXPECT_EQ(table.find("GPU"), std::string::npos) << table;
  EXPECT_LE(shape_of(table).first, 100u) << table;
  // A long name stands above its figures, and so do the others.
  all[0].name = "TP2 x PP2, layers 16+16, q8_0 cache, ffn 25 % hybrid, and what else";
  EXPECT_LE(shape_of(sweep_table(all)).first, 100u) << sweep_table(all);
  EXPECT_EQ(shape_of(sweep_table(all)).second, shape_of(table).second + all.size());
  // Of one row there is no rank to compare.
  all.resize(1);
  EXPECT_EQ(sweep_table(all).find("rank correlation"), std::string::npos) << sweep_table(all);
}

TEST(SweepReport, PlotsAreWellFormed) {
  for (const bool offload : {false, true}) {
    const std::string svg = sweep_svg(rows(), "a < b & c", offload);
    EXPECT_EQ(svg.rfind("<svg", 0), 0u);
    EXPECT_NE(svg.find("a &lt; b &amp; c"), std::string::npos);
    EXPECT_EQ(svg.find("<cache>"), std::string::npos);
    EXPECT_EQ(svg.find("nan"), std::string::npos);
    EXPECT_EQ(svg.find("inf"), std::string::npos);
  }
  EXPECT_EQ(sweep_svg({}, "nothing", false).find("nan"), std::string::npos);
  EXPECT_NE(sweep_svg({}, "a\xff\x01z", false).find("a??z"), std::string::npos);
}

}  // namespace
}  // namespace spillway

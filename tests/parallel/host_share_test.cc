// What ranks get of one host's memory at the same time, by hand.
#include "parallel/host_share.h"

#include <gtest/gtest.h>

#include "parallel/cost.h"
#include "parallel/planner.h"
#include "parallel/spill_search.h"
#include "tests/parallel/made_up_gpus.h"

namespace spillway {
namespace {

using testing::gpus;
using testing::llama_8b;
using testing::measured_cluster;
using testing::smollm2;
using testing::with_host_rates;

// 4 of 16 threads on a host: 40 GB/s alone, 25 beside a bus; 20 and 10 when all read.
RankSpec probed() {
  RankSpec spec;
  spec.threads = 4;
  spec.measured = true;
  spec.host_reads = {{1, 15, 12, 50}, {4, 40, 25, 50}};
  spec.together = {16, 20, 10, 30};
  return spec;
}

TEST(HostShare, ReadsLieBetweenAloneAndAllTogether) {
  const RankSpec spec = probed();
  EXPECT_EQ(read_slowdown(spec, 4, false), 1);
  EXPECT_DOUBLE_EQ(read_slowdown(spec, 16, false), 2);   // 80 in all for four
  EXPECT_DOUBLE_EQ(read_slowdown(spec, 16, true), 2.5);  // 40 in all
  EXPECT_DOUBLE_EQ(read_slowdown(spec, 8, false), 1.5);  // 40 + 40 / 3 in all, 80 / 3 for each
  EXPECT_DOUBLE_EQ(read_slowdown(spec, 32, false), 4);   // no more than 80 for any number
  EXPECT_DOUBLE_EQ(bus_slowdown(spec, 4), 50.0 / 30);    // 120 in all
  EXPECT_DOUBLE_EQ(bus_slowdown(spec, 2), 100 / (50 + 70.0 / 3));
  EXPECT_EQ(bus_slowdown(spec, 1), 1);
}

TEST(HostShare, ACurveGoesOnWhereNobodyMeasuredMore) {
  RankSpec spec = probed();
  spec.together = {};
  // 1 / rate = c + d / threads: d = (1/15 - 1/40) / (3/4) = 1/18, c = 1/90.
  EXPECT_NEAR(read_slowdown(spec, 8, false), 40 / (0.5 / (1.0 / 90 + 1.0 / 144)), 1e-9);
  EXPECT_EQ(bus_slowdown(spec, 2), 1);
  // As fast with each thread: memory is not what bounds it.
  spec.host_reads = {{1, 10, 0, 0}, {4, 40, 0, 0}};
  EXPECT_EQ(read_slowdown(spec, 16, false), 1);
  // No faster with more threads: all of it.
  spec.host_reads = {{1, 40, 0, 0}, {4, 39, 0, 0}};
  EXPECT_DOUBLE_EQ(read_slowdown(spec, 16, false), 4);
  spec.host_reads = {{4, 40, 0, 0}};
  EXPECT_EQ(read_slowdown(spec, 16, false), 1);
  spec.measured = false;  // a file's, that says what each has
  spec.host_reads = {{1, 40, 0, 0}, {4, 39, 0, 0}};
  EXPECT_EQ(read_slowdown(spec, 16, false), 1);
}

TEST(HostShare, WhoIsDoneLeavesTheMemoryToTheOthers) {
  const RankSpec spec = probed();
  // Two at 1.5 until the shorter is done after 15 ms; the other has 20 left, alone.
  std::vector<HostReaders> two = {{&spec, 1, false, 30}, {&spec, 1, false, 10}};
  read_together(two, 0);
  EXPECT_DOUBLE_EQ(two[1].ms, 15);
  EXPECT_DOUBLE_EQ(two[0].ms, 35);
  std::vector<HostReaders> four = {{&spec, 4, false, 10}};
  read_together(four, 0);
  EXPECT_DOUBLE_EQ(four[0].ms, 20);
  std::vector<HostReaders> one = {{&spec, 1, false, 10}, {&spec, 3, false, 0}};
  read_together(one, 0);
  EXPECT_DOUBLE_EQ(one[0].ms, 10);
  EXPECT_EQ(one[1].ms, 0);
  read_together(one, 12);  // of other stages
  EXPECT_DOUBLE_EQ(one[0].ms, 20);
}

// Work of four of 16 threads that takes half as long again when all are at theirs.
TEST(HostShare, WorkOfCpuRanksLiesOnALineToo) {
  RankSpec spec = probed();
  HostReaders one{&spec, 1, false, 10, 1.5, 16};
  EXPECT_EQ(slowdown_of(one, 4), 1);
  EXPECT_DOUBLE_EQ(slowdown_of(one, 16), 1.5);
  // In all 4 / 1.5 ranks' work with 16, 1 with 4: 1 + 5 / 9 with 8.
  EXPECT_DOUBLE_EQ(slowdown_of(one, 8), 2 / (1 + 5.0 / 9));
  EXPECT_DOUBLE_EQ(slowdown_of(one, 32), 3);
  one.slowdown_of_all = 0;
  EXPECT_EQ(slowdown_of(one, 16), read_slowdown(spec, 16, false));
  // The shorter is done after 10 * slower ms; then the other is alone.
  std::vector<HostReaders> two = {{&spec, 1, false, 30, 1.5, 16}, {&spec, 1, false, 10, 1.5, 16}};
  const double slower = slowdown_of(two[0], 8);
  read_together(two, 0);
  EXPECT_NEAR(two[1].ms, 10 * slower, 1e-9);
  EXPECT_NEAR(two[0].ms, 10 * slower + 20, 1e-9);
}

// Two CPU ranks of one host, one thread each: 10 GB/s alone, 6 each together.
ClusterSpec two_of_a_host() {
  ClusterSpec cluster = measured_cluster(2, 10.0);
  for (RankSpec& rank : cluster.ranks) {
    rank.host = "one";
    rank.matrix_gop_per_s = 1e12;
    rank.together = {2, 6, 0, 0};
  }
  cluster.link = {0.0, 1e9, true};
  return cluster;
}

Prediction predicted(const ClusterSpec& cluster, const std::string& split) {
  PlanRequest request;
  request.split = parse_split(split);
  request.context = 512;
  request.limits.max_sequences = 2;
  return make_plan(smollm2(), cluster, request).prediction;
}

TEST(HostShare, RanksOfAGroupShareAndStagesInTurnDoNot) {
  const ClusterSpec shared = two_of_a_host();
  ClusterSpec apart = shared;
  apart.ranks[1].host = "two";
  const Prediction one = predicted(shared, "1:1");
  const Prediction two = predicted(apart, "1:1");
  // Shares of attention are 2:1 of its heads, so that somebody is alone for a part of it.
  EXPECT_GT(one.matrix_ms, two.matrix_ms * 1.3);
  EXPECT_LT(one.matrix_ms, two.matrix_ms * 10 / 6);
  EXPECT_GT(one.attention_ms, two.attention_ms * 1.01);
  EXPECT_DOUBLE_EQ(predicted(shared, "1+1").total_ms, predicted(apart, "1+1").total_ms);
  // Two sequences in two stages keep both busy.
  EXPECT_NEAR(predicted(shared, "1+1").sequences_tok_per_s,
              predicted(apart, "1+1").sequences_tok_per_s * 0.6, 0.5);
}

TEST(HostShare, HalvesOnTheCpuBesideGpusShareToo) {
  ClusterSpec cluster = with_host_rates(gpus({80, 80}));
  PlanRequest request;
  request.split = parse_split("1:1");
  request.device = DeviceChoice::kGpu;
  request.places = parse_places("layers all ffn = cpu");
  request.limits.max_cpu_rows = 1;
  const auto wait_ms = [&] { return make_plan(llama_8b(), cluster, request).prediction.cpu_ms; };
  const double alone = wait_ms();
  for (RankSpec& rank : cluster.ranks) {
    rank.threads = 16;
    rank.together = {32, 42, 42, 52};
  }
  const double together = wait_ms();
  // What is waited for is longer by the halves' own time, of which hand-overs are no part.
  EXPECT_GT(together, alone * 1.7);
  EXPECT_LT(together, alone * 2.2);
}

}  // namespace
}  // namespace spillway

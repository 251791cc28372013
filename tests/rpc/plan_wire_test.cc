// Plans and clusters over the wire: every field comes back bit for bit; broken bytes are Errors,
// never crashes.
#include "rpc/plan_wire.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "kernels/core/error.h"
#include "parallel/planner.h"
#include "tests/parallel/model_shapes.h"
#include "tests/rpc/test_job.h"

namespace spillway {
namespace {

using testing::sample_plan;

// Two stages of two ranks and one, all numbers different.
Plan odd_plan() {
  Plan plan;
  plan.model_name = std::string("caf\xc3\xa9 \xff\xfe not UTF-8") + '\0' + "end";
  plan.header_hash = 0xfedcba9876543210u;
  plan.stages = {{{0, 2}, {2, 0}, {0.75, 0.25}, {0.7, 0.3}}, {{2, 3}, {1}, {1.0}, {1.0}}};
  int64_t next = int64_t{1} << 40;
  const auto range = [&next] {
    next += 3;
    return Range{next, next + 2};
  };
  const int stage_of[] = {0, 1, 0};
  const int tp_of[] = {1, 0, 0};
  for (int rank = 0; rank < 3; ++rank) {
    RankPart part{rank, stage_of[rank], tp_of[rank], {}, range(), range(), rank == 1};
    for (int64_t i = 0; i < plan.stages[part.stage].layers.size(); ++i) {
      part.layers.push_back({range(), range(), range(), Place::kStreamed, Place::kHybrid, range()});
    }
    plan.parts.push_back(part);
  }
  plan.limits = {11, 12, 13, 14, 15, true, 17};
  plan.kv = {KvType::kF32, 21, 22, 23};
  plan.ledger = {{2, "host", "weights", "layers 0-1", int64_t{1} << 50}, {0, "gpu", "n", "", -1}};
  plan.prediction = {1.5, 2.5, 3.5, 4.5,    5.5,  6.5,
                     7.5, 8.5, 9.5, 1e-300, 10.5, std::numeric_limits<double>::infinity(),
                     true};
  plan.budgets = {{1, int64_t{1} << 50, true, false, 0, 6},
                  {2, 3, false, true, int64_t{1} << 51, 0},
                  {4, 5, true, true, 0, 0}};
  return plan;
}

void expect_equal(const Plan& a, const Plan& b) {
  EXPECT_EQ(a.model_name, b.model_name);
  EXPECT_EQ(a.header_hash, b.header_hash);
  ASSERT_EQ(a.stages.size(), b.stages.size());
  for (size_t i = 0; i < a.stages.size(); ++i) {
    EXPECT_EQ(a.stages[i].layers, b.stages[i].layers);
    EXPECT_EQ(a.stages[i].ranks, b.stages[i].ranks);
    EXPECT_EQ(a.stages[i].shares, b.stages[i].shares);
    EXPECT_EQ(a.stages[i].achieved, b.stages[i].achieved);
  }
  ASSERT_EQ(a.parts.size(), b.parts.size());
  for (size_t i = 0; i < a.parts.size(); ++i) {
    EXPECT_EQ(a.parts[i].rank, b.parts[i].rank);
    EXPECT_EQ(a.parts[i].stage, b.parts[i].stage);
    EXPECT_EQ(a.parts[i].tp_index, b.parts[i].tp_index);
    EXPECT_EQ(a.parts[i].layers, b.parts[i].layers);
    EXPECT_EQ(a.parts[i].embedding_rows, b.parts[i].embedding_rows);
    EXPECT_EQ(a.parts[i].output_rows, b.parts[i].output_rows);
    EXPECT_EQ(a.parts[i].gpu, b.parts[i].gpu);
  }
  EXPECT_EQ(a.limits, b.limits);
  EXPECT_EQ(a.kv.type, b.kv.type);
  EXPECT_EQ(a.kv.page_tokens, b.kv.page_tokens);
  EXPECT_EQ(a.kv.n_pages, b.kv.n_pages);
  EXPECT_EQ(a.kv.context, b.kv.context);
  ASSERT_EQ(a.ledger.size(), b.ledger.size());
  for (size_t i = 0; i < a.ledger.size(); ++i) {
    EXPECT_EQ(a.ledger[i].rank, b.ledger[i].rank);
    EXPECT_EQ(a.ledger[i].place, b.ledger[i].place);
    EXPECT_EQ(a.ledger[i].name, b.ledger[i].name);
    EXPECT_EQ(a.ledger[i].detail, b.ledger[i].detail);
    EXPECT_EQ(a.ledger[i].bytes, b.ledger[i].bytes);
  }
  EXPECT_EQ(a.prediction.matrix_ms, b.prediction.matrix_ms);
  EXPECT_EQ(a.prediction.attention_ms, b.prediction.attention_ms);
  EXPECT_EQ(a.prediction.launch_ms, b.prediction.launch_ms);
  EXPECT_EQ(a.prediction.collective_ms, b.prediction.collective_ms);
  EXPECT_EQ(a.prediction.cpu_ms, b.prediction.cpu_ms);
  EXPECT_EQ(a.prediction.bus_ms, b.prediction.bus_ms);
  EXPECT_EQ(a.prediction.disk_ms, b.prediction.disk_ms);
  EXPECT_EQ(a.prediction.sequences_tok_per_s, b.prediction.sequences_tok_per_s);
  EXPECT_EQ(a.budgets, b.budgets);
  EXPECT_EQ(a.prediction.hop_ms, b.prediction.hop_ms);
  EXPECT_EQ(a.prediction.total_ms, b.prediction.total_ms);
  EXPECT_EQ(a.prediction.decode_tok_per_s, b.prediction.decode_tok_per_s);
  EXPECT_EQ(a.prediction.prefill_tok_per_s, b.prediction.prefill_tok_per_s);
  EXPECT_EQ(a.prediction.measured_cluster, b.prediction.measured_cluster);
}

TEST(PlanWire, EveryFieldComesBack) {
  const Plan plan = odd_plan();
  const Plan back = decode_plan(encode_plan(plan));
  expect_equal(plan, back);
  EXPECT_EQ(plan_fingerprint(back), plan_fingerprint(plan));
  EXPECT_EQ(encode_plan(back), encode_plan(plan));
}

// The coordinator plans; a rank that plans from the cluster it was sent finds the same.
TEST(PlanWire, APlanForGpusAndACpuIsTheSameOnEveryRank) {
  const ModelSpec model = testing::smollm2();
  ClusterSpec cluster = testing::measured_cluster(3);
  for (const int rank : {0, 1}) {
    GpuSpec& gpu = cluster.ranks[static_cast<size_t>(rank)].gpu;
    gpu = {"Made Up",
           "GPU-aaaaaaa" + std::to_string(rank),
           rank,
           9,
           0,
           132,
           int64_t{24} << 30,
           int64_t{23} << 30,
           3000.5,
           0};
  }
  PlanRequest request;
  request.split = parse_split("2:1+1");
  request.devices = {DeviceChoice::kGpu, DeviceChoice::kGpu, DeviceChoice::kCpu};
  const Plan plan = make_plan(model, cluster, request);
  ASSERT_TRUE(plan.parts[0].gpu && plan.parts[1].gpu && !plan.parts[2].gpu);
  const Plan back = decode_plan(encode_plan(plan));
  expect_equal(plan, back);
  EXPECT_EQ(plan_fingerprint(back), plan_fingerprint(plan));
  EXPECT_TRUE(check_plan(back, model).empty());
  const ClusterSpec sent = decode_cluster(encode_cluster(cluster));
  EXPECT_EQ(plan_fingerprint(make_plan(model, sent, request)), plan_fingerprint(plan));
  EXPECT_EQ(plan_table(back, model, sent), plan_table(plan, model, cluster));
}

TEST(PlanWire, TheEmptyPlanComesBack) { expect_equal(Plan{}, decode_plan(encode_plan(Plan{}))); }

TEST(PlanWire, TheClusterComesBack) {
  ClusterSpec cluster;
  cluster.ranks = {{0, "a", 1, 2, 3, "cpu \xff", "isa", 4, int64_t{5} << 40, 6.25, 7.5, true},
                   {1, "", 0, 1, int64_t{1} << 60, "", "", 1, 0, 0, 0, false}};
  cluster.ranks[1].gpu = {"gpu \xff",       "GPU-1", 2,      9,    1,     132,  int64_t{6} << 40,
                          int64_t{7} << 40, 3000.5,  450.25, 52.5, 54.25, 0.75, 1};
  cluster.ranks[1].host_reads = {{1, 8.5, 6.25, 51.5}, {16, 90.5, 84.25, 52.5}};
  cluster.ranks[1].together = {32, 60.5, 55.25, 40.5};
  cluster.ranks[1].cpu_alone = {
      4, {{QuantType::kQ4_K, 20.5, 110.25}, {QuantType::kQ6_K, 19, 95.5}}, 8.5, 30.25, 0.5, 0.25,
      12};
  cluster.ranks[1].cpu_together = {8, {{QuantType::kQ8_0, 15.5, 100.1}}, 6, 20, 0.75, 0.5, 13.5};
  cluster.ranks[1].pin_gb_per_s = 1.75;
  cluster.ranks[1].numa_nodes = 2;
  cluster.ranks[1].disk_gb_per_s = 2.75;
  cluster.ranks[1].page_cache_gb_per_s = 9.25;
  cluster.pairs = {{0, 1, "peer", 310.5, 4.25}};
  cluster.link = {8.5, 9.75, true, 12.25};
  const ClusterSpec back = decode_cluster(encode_cluster(cluster));
  ASSERT_EQ(back.size(), 2);
  EXPECT_EQ(encode_cluster(back), encode_cluster(cluster));
  EXPECT_EQ(back.ranks[0].host, "a");
  EXPECT_EQ(back.ranks[0].local_rank, 1);
  EXPECT_EQ(back.ranks[0].local_size, 2);
  EXPECT_EQ(back.ranks[0].pid, 3);
  EXPECT_EQ(back.ranks[0].cpu, "cpu \xff");
  EXPECT_EQ(back.ranks[0].isa, "isa");
  EXPECT_EQ(back.ranks[0].threads, 4);
  EXPECT_EQ(back.ranks[0].memory_free_bytes, int64_t{5} << 40);
  EXPECT_EQ(back.ranks[0].read_gb_per_s, 6.25);
  EXPECT_EQ(back.ranks[0].matrix_gop_per_s, 7.5);
  EXPECT_TRUE(back.ranks[0].measured);
  EXPECT_FALSE(back.ranks[1].measured);
  EXPECT_EQ(back.ranks[1].pid, int64_t{1} << 60);
  EXPECT_FALSE(back.ranks[0].gpu.present());
  const GpuSpec& gpu = back.ranks[1].gpu;
  EXPECT_EQ(gpu.name, "gpu \xff");
  EXPECT_EQ(gpu.uuid, "GPU-1");
  EXPECT_EQ(gpu.ordinal, 2);
  EXPECT_EQ(gpu.major, 9);
  EXPECT_EQ(gpu.minor, 1);
  EXPECT_EQ(gpu.multiprocessors, 132);
  EXPECT_EQ(gpu.total_bytes, int64_t{6} << 40);
  EXPECT_EQ(gpu.free_bytes, int64_t{7} << 40);
  EXPECT_EQ(gpu.read_gb_per_s, 3000.5);
  EXPECT_EQ(gpu.matrix_tflops, 450.25);
  EXPECT_EQ(gpu.h2d_gb_per_s, 52.5);
  EXPECT_EQ(gpu.d2h_gb_per_s, 54.25);
  EXPECT_EQ(gpu.launch_gap_us, 0.75);
  EXPECT_EQ(gpu.numa_node, 1);
  ASSERT_EQ(back.ranks[1].host_reads.size(), 2u);
  EXPECT_EQ(back.ranks[1].host_reads[1].threads, 16);
  EXPECT_EQ(back.ranks[1].host_reads[1].gb_per_s, 90.5);
  EXPECT_EQ(back.ranks[1].host_reads[1].beside_bus_gb_per_s, 84.25);
  EXPECT_EQ(back.ranks[1].host_reads[0].bus_gb_per_s, 51.5);
  EXPECT_EQ(back.ranks[1].together, cluster.ranks[1].together);
  EXPECT_EQ(back.ranks[0].together.threads, 0);
  EXPECT_EQ(back.ranks[1].cpu_alone, cluster.ranks[1].cpu_alone);
  EXPECT_EQ(back.ranks[1].cpu_together, cluster.ranks[1].cpu_together);
  EXPECT_EQ(back.ranks[0].cpu_alone, CpuRates{});
  EXPECT_EQ(back.ranks[1].pin_gb_per_s, 1.75);
  EXPECT_EQ(back.ranks[1].numa_nodes, 2);
  EXPECT_EQ(back.ranks[1].disk_gb_per_s, 2.75);
  EXPECT_EQ(back.ranks[1].page_cache_gb_per_s, 9.25);
  ASSERT_NE(back.pair(1, 0), nullptr);
  EXPECT_EQ(back.pair(0, 1)->fabric, "peer");
  EXPECT_EQ(back.pair(0, 1)->gb_per_s, 310.5);
  EXPECT_EQ(back.pair(0, 1)->small_sum_us, 4.25);
  EXPECT_EQ(back.pair(0, 0), nullptr);
  EXPECT_EQ(back.link.latency_us, 8.5);
  EXPECT_EQ(back.link.row_sum_us, 12.25);
  EXPECT_EQ(back.link.gb_per_s, 9.75);
  EXPECT_TRUE(back.link.measured);
}

TEST(PlanWire, RanksOutOfOrderAreAnError) {
  ClusterSpec cluster;
  cluster.ranks.resize(2);
  cluster.ranks[1].rank = 2;
  EXPECT_THROW(decode_cluster(encode_cluster(cluster)), Error);
}

TEST(PlanWire, PairsOfRanksThatAreNotThereAreAnError) {
  ClusterSpec cluster = assumed_cluster(2);
  cluster.pairs = {{0, 1, "nccl", 1, 1}};
  EXPECT_NO_THROW(decode_cluster(encode_cluster(cluster)));
  for (const PairSpec& pair : {PairSpec{0, 2, "", 1, 1}, {1, 0, "", 1, 1}, {-1, 1, "", 1, 1}}) {
    cluster.pairs = {pair};
    EXPECT_THROW(decode_cluster(encode_cluster(cluster)), Error);
  }
}

TEST(PlanWire, PlansThatWouldBreakAReaderAreErrors) {
  const auto broken = [](auto change) -> std::string {
    Plan plan = odd_plan();
    change(plan);
    try {
      decode_plan(encode_plan(plan));
      return "";
    } catch (const Error& error) {
      return error.what();
    }
  };
  EXPECT_EQ(broken([](Plan&) {}), "");
  EXPECT_NE(broken([](Plan& plan) { plan.kv.type = static_cast<KvType>(9); }), "");
  EXPECT_NE(broken([](Plan& plan) { plan.stages[0].ranks[0] = 3; }), "");
  EXPECT_NE(broken([](Plan& plan) { plan.stages[0].ranks[0] = -1; }), "");
  EXPECT_NE(broken([](Plan& plan) { plan.stages[1].ranks.clear(); }), "");
  EXPECT_NE(broken([](Plan& plan) { plan.stages[0].shares.pop_back(); }), "");
  EXPECT_NE(broken([](Plan& plan) { plan.stages[0].achieved.push_back(1); }), "");
  EXPECT_NE(broken([](Plan& plan) { plan.parts[1].rank = 2; }), "");
  EXPECT_NE(broken([](Plan& plan) { plan.parts[1].stage = 2; }), "");
  EXPECT_NE(broken([](Plan& plan) { plan.parts[1].stage = -1; }), "");
  EXPECT_NE(broken([](Plan& plan) { plan.parts[0].tp_index = 2; }), "");
  EXPECT_NE(broken([](Plan& plan) { plan.parts[0].tp_index = 0; }), "");
  EXPECT_NE(broken([](Plan& plan) { plan.parts[0].layers.pop_back(); }), "");
  EXPECT_NE(broken([](Plan& plan) { plan.parts.pop_back(); }), "");
}

TEST(PlanWire, BrokenBytesNeverCrash) {
  EXPECT_THROW(decode_plan("\xff\xff\xff"), Error);
  EXPECT_THROW(decode_cluster("no message"), Error);
  const std::string good = encode_plan(odd_plan());
  const std::string cluster = encode_cluster([] {
    ClusterSpec spec;
    spec.ranks.resize(1);
    spec.ranks[0].host = "host";
    return spec;
  }());
  std::mt19937 random(7);
  int refused = 0;
  for (int round = 0; round < 4000; ++round) {
    std::string bytes = round % 2 == 0 ? good : cluster;
    const size_t changes = 1 + random() % 3;
    for (size_t i = 0; i < changes; ++i) bytes[random() % bytes.size()] ^= 1 << (random() % 8);
    if (random() % 4 == 0) bytes.resize(random() % bytes.size());
    try {
      round % 2 == 0 ? void(decode_plan(bytes)) : void(decode_cluster(bytes));
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()), "");
      ++refused;
    }
  }
  EXPECT_GT(refused, 100);
}

}  // namespace
}  // namespace spillway

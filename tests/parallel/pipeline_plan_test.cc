// Plans of several stages: bytes of what goes from stage to stage, layers beside the head, and how
// fast steps in flight are said to be. Expected numbers are made by hand.
#include <gtest/gtest.h>

#include <vector>

#include "kernels/core/packed_matrix.h"
#include "parallel/cost.h"
#include "parallel/gpu_ledger.h"
#include "parallel/ledger.h"
#include "parallel/planner.h"
#include "tests/parallel/made_up_gpus.h"
#include "tests/parallel/model_shapes.h"

namespace spillway {
namespace {

using testing::gpus;
using testing::llama_70b;
using testing::measured_cluster;
using testing::on;
using testing::smollm2;

constexpr DeviceChoice kAuto = DeviceChoice::kAuto;
constexpr DeviceChoice kCpu = DeviceChoice::kCpu;
constexpr DeviceChoice kGpu = DeviceChoice::kGpu;

TEST(PipelineLedger, HopsHavePinnedMemory) {
  const ModelSpec model = smollm2();
  const Plan plan = make_plan(model, gpus({80, 80, 80}), on(kGpu, "1+1+1"));
  const int64_t hop = plan.limits.max_rows * 576 * 4;
  const int64_t expected[][2] = {{0, 2 * hop}, {hop, 2 * hop}, {hop, 0}};
  for (const RankPart& part : plan.parts) {
    const bool last = part.rank == 2;
    const BufferList list = pinned_buffers(model, part, plan.limits, plan.kv, last);
    EXPECT_EQ(list.buffers[0].name, "step");
    EXPECT_EQ(list.bytes_of("recv"), expected[part.rank][0]);
    EXPECT_EQ(list.bytes_of("send"), expected[part.rank][1]);
    EXPECT_EQ(list.bytes_of("logits") > 0, last);
    int64_t staging = 0;
    for (const LedgerLine& line : plan.ledger) {
      if (line.rank == part.rank && line.detail == "pinned staging") staging = line.bytes;
    }
    EXPECT_EQ(staging, list.total() + 4096 + (int64_t{128} << 20));  // a page of words
  }
}

TEST(PipelineLedger, RowsFromAGpuComeIntoTwoSlots) {
  const ModelSpec model = smollm2();
  // A page of words, two slots of 512 rows of 576 floats: 2.25 MiB, in blocks of 2 MiB.
  const int64_t words = 2 << 20;
  const int64_t slots = 4 << 20;
  EXPECT_EQ(device_hop_bytes(true, true, 512, 576), slots);
  EXPECT_EQ(device_hop_bytes(true, false, 512, 576), slots);
  EXPECT_EQ(device_hop_bytes(false, true, 512, 576), words);
  EXPECT_EQ(device_hop_bytes(false, false, 512, 576), 0);
  EXPECT_EQ(device_hop_pinned_bytes(false, true), 4096);
  EXPECT_EQ(device_hop_pinned_bytes(false, false), 0);
  const auto hops_of = [](const Plan& plan) {
    std::vector<int64_t> bytes(static_cast<size_t>(plan.n_ranks()), 0);
    for (const LedgerLine& line : plan.ledger) {
      if (line.detail != "hops") continue;
      EXPECT_EQ(line.place, "gpu");
      EXPECT_EQ(line.name, "activations");
      bytes[static_cast<size_t>(line.rank)] += line.bytes;
    }
    return bytes;
  };
  const auto plan_of = [&](const std::vector<int64_t>& gib, const char* split) {
    return make_plan(model, gpus(gib), on(kAuto, split));
  };
  using Bytes = std::vector<int64_t>;
  EXPECT_EQ(hops_of(plan_of({80, 80, 80}, "1+1+1")), Bytes({words, slots, slots}));
  EXPECT_EQ(hops_of(plan_of({80, 80, 80}, "1:1+1")), Bytes({words, words, slots}));
  // Rows from a CPU and to one pass through the host.
  EXPECT_EQ(hops_of(plan_of({80, 80, 0}, "1+1+1")), Bytes({words, slots, 0}));
  EXPECT_EQ(hops_of(plan_of({80, 0, 80}, "1+1+1")), Bytes({0, 0, 0}));
  EXPECT_EQ(hops_of(plan_of({80, 80}, "1:1")), Bytes({0, 0}));
}

// CPUs whose products alone cost: 2e6 multiply-adds a millisecond, messages nothing.
ClusterSpec products_only(int n) {
  ClusterSpec cluster = measured_cluster(n, 1e9);
  for (RankSpec& rank : cluster.ranks) rank.matrix_gop_per_s = 2.0;
  cluster.link = {0.0, 1e9, true};
  return cluster;
}

// Every row sees itself alone, so that all steps cost the same.
ModelSpec short_sighted() {
  ModelSpec model = smollm2();
  for (LayerSpec& layer : model.layers) layer.window = 1;
  return model;
}

double prefill_ms(const ModelSpec& model, const char* split, int64_t step_rows) {
  const ClusterSpec cluster = products_only(2);
  PlanRequest request = on(kCpu, split);
  request.limits.max_rows = step_rows;
  return 512e3 / make_plan(model, cluster, request).prediction.prefill_tok_per_s;
}

TEST(PipelinePrefill, TheFirstStepFillsThenTheSlowestStageSetsThePace) {
  const ModelSpec model = short_sighted();
  // A row in a layer: 3.54 million products, and attention's two of 576 at a quarter of the rate.
  const double row_ms = (576.0 * (64 * (9 + 3 + 3 + 9) + 3 * 1536) + 2 * 576 * 4) / 2e6;
  const double head_ms = 49152.0 * 576 / 2e6;  // of the last row
  const double ten_ms = 10 * 128 * row_ms;     // ten layers of a step of 128 rows
  // 4 steps. The second stage is the slower one: it waits once.
  EXPECT_NEAR(prefill_ms(model, "10@1+20@1", 128), ten_ms + 4 * 2 * ten_ms + head_ms, 1e-6);
  // The first one is: the second works when it is done with each.
  EXPECT_NEAR(prefill_ms(model, "20@1+10@1", 128), 4 * 2 * ten_ms + ten_ms + head_ms, 1e-6);
  // One step: nothing overlaps.
  EXPECT_NEAR(prefill_ms(model, "10@1+20@1", 512), 4 * 3 * ten_ms + head_ms, 1e-6);
  // 200, 200 and 112 rows: the last step is shorter.
  const double row_ten = 10 * row_ms;
  EXPECT_NEAR(prefill_ms(model, "15@1+15@1", 200), 1.5 * row_ten * (200 + 512) + head_ms, 1e-6);
}

TEST(PipelinePrefill, LaterStepsSeeMoreOfThePrompt) {
  // Without windows a prompt has as many pairs in four steps as in one.
  const ModelSpec model = smollm2();
  const auto alone_ms = [&](int64_t rows) {
    const ClusterSpec cluster = products_only(1);
    PlanRequest request = on(kCpu, "1");
    request.limits.max_rows = rows;
    return 512e3 / make_plan(model, cluster, request).prediction.prefill_tok_per_s;
  };
  EXPECT_NEAR(alone_ms(128), alone_ms(512), 1e-6);
  // In two equal stages the second is busy all the time but for the first step's half of its work.
  const double row_ms = 576.0 * (64 * (9 + 3 + 3 + 9) + 3 * 1536) / 2e6;
  const double pair_ms = 2 * 576 * 4 / 2e6;
  const double first_ms = 15 * (128 * row_ms + 128 * 129 / 2 * pair_ms);
  const double all_ms = 15 * (512 * row_ms + 512 * 513 / 2 * pair_ms);
  const double head_ms = 49152.0 * 576 / 2e6;
  // Each step is longer than the one before, so the first stage hands step 4 over last:
  const double fourth_ms = 15 * (128 * row_ms + (512 * 513 / 2 - 384 * 385 / 2) * pair_ms);
  EXPECT_NEAR(prefill_ms(model, "15@1+15@1", 128), all_ms + fourth_ms + head_ms, 1e-6);
  EXPECT_GT(fourth_ms, first_ms);
}

TEST(PipelineCost, HopsBetweenGpusOfAHostByHand) {
  const ModelSpec model = smollm2();
  const ClusterSpec cluster = gpus({80, 80, 80});
  const Plan plan = make_plan(model, cluster, on(kGpu, "20@1:1+10@1"));
  const double messages_ms = 2 * 0.005;
  const double peer_ms = 0.008 + 576 * 4 / 150e6;
  EXPECT_NEAR(predict(plan, model, cluster, 0).hop_ms, messages_ms + peer_ms, 1e-9);
  // To another host, and where a rank shares a GPU: the assumed link, and a copy at either end.
  const double link_ms = 0.005 + 576 * 4 / 2e6;
  const double copy_ms = 0.02 + 576 * 4 / 50e6;
  ClusterSpec hosts = cluster;
  hosts.ranks[2].host = "two";
  EXPECT_NEAR(predict(plan, model, hosts, 0).hop_ms, messages_ms + link_ms + 2 * copy_ms, 1e-9);
  ClusterSpec shared = cluster;
  shared.ranks[2].gpu = shared.ranks[1].gpu;
  EXPECT_NEAR(predict(plan, model, shared, 0).hop_ms, messages_ms + link_ms + 2 * copy_ms, 1e-9);
}

TEST(PipelineLayers, TheHeadCountsOnGpus) {
  // The head is 128256 rows of Q8_0, a layer 855 638 016 values of Q4_K.
  const ModelSpec model = llama_70b();
  const double head = 128256.0 * 8192 * 34 / 32;
  const double layer = 855638016.0 * 144 / 256;
  EXPECT_NEAR(head / layer, 2.319, 1e-3);
  PlanRequest request = on(kAuto);
  request.tp = 1;
  // (80 + 2.3) / 4 = 20.6: 20.6, 20.6, 20.6 and 18.3.
  const Plan four = make_plan(model, gpus({80, 80, 80, 80}), request);
  EXPECT_EQ(plan_title(four), "TP1 x PP4, layers 21+21+20+18");
  // What the user wrote stays.
  EXPECT_EQ(plan_title(make_plan(model, gpus({80, 80}), on(kAuto, "1+1"))),
            "TP1 x PP2, layers 40+40");
  request = on(kCpu);
  request.tp = 1;
  EXPECT_EQ(plan_title(make_plan(smollm2(), measured_cluster(2), request)),
            "TP1 x PP2, layers 15+15");
}

}  // namespace
}  // namespace spillway

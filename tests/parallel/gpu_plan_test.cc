// Plans with a GPU: when a rank computes on it, what is refused and with which words, where its
// bytes lie, how fast it is said to be. The GPUs are made up; sizes are by hand from the shapes.
#include <gtest/gtest.h>

#include <sstream>

#include "kernels/core/error.h"
#include "parallel/cost.h"
#include "parallel/gpu_ledger.h"
#include "parallel/ledger.h"
#include "parallel/planner.h"
#include "tests/parallel/model_shapes.h"
#include "tests/parallel/refusal.h"

namespace spillway {
namespace {

using testing::expect_says;
using testing::measured_cluster;
using testing::refusal;
using testing::smollm2;
using testing::tiny_stories;

ClusterSpec gpu_cluster(int n = 1, int64_t free_bytes = int64_t{79} << 30) {
  ClusterSpec cluster = measured_cluster(n);
  for (RankSpec& rank : cluster.ranks) {
    rank.gpu.name = "Made Up 9000";
    rank.gpu.ordinal = 3;
    rank.gpu.total_bytes = int64_t{80} << 30;
    rank.gpu.free_bytes = free_bytes;
    rank.gpu.read_gb_per_s = 3000;
  }
  return cluster;
}

PlanRequest on(DeviceChoice device) {
  PlanRequest request;
  request.device = device;
  request.context = 512;
  return request;
}

// The same, and nothing may be spilled.
PlanRequest resident(DeviceChoice device) {
  PlanRequest request = on(device);
  request.places = parse_places("layers all = resident");
  return request;
}

// What attention on the GPU has no tiles for.
ModelSpec heads_of_72() {
  ModelSpec model = smollm2();
  model.head_dim = 72;
  model.n_heads = 8;
  model.n_kv_heads = 2;
  for (LayerSpec& layer : model.layers) layer.k.rows = layer.v.rows = 144;
  return model;
}

TEST(GpuChoice, AutoTakesTheGpuThatHoldsThePlan) {
  const Plan plan = make_plan(smollm2(), gpu_cluster(), on(DeviceChoice::kAuto));
  EXPECT_TRUE(plan.parts[0].gpu);
  EXPECT_TRUE(check_plan(plan, smollm2()).empty());
  EXPECT_FALSE(make_plan(smollm2(), gpu_cluster(), on(DeviceChoice::kCpu)).parts[0].gpu);
  EXPECT_FALSE(make_plan(smollm2(), measured_cluster(1), on(DeviceChoice::kAuto)).parts[0].gpu);
  EXPECT_TRUE(make_plan(smollm2(), gpu_cluster(), on(DeviceChoice::kGpu)).parts[0].gpu);
}

TEST(GpuChoice, AutoDecidesByTheLastByte) {
  const Plan plan = make_plan(smollm2(), gpu_cluster(), on(DeviceChoice::kGpu));
  const int64_t need = plan.rank_bytes(0, "", "gpu");
  const PlanRequest fixed = resident(DeviceChoice::kAuto);
  EXPECT_TRUE(make_plan(smollm2(), gpu_cluster(1, need), fixed).parts[0].gpu);
  EXPECT_FALSE(make_plan(smollm2(), gpu_cluster(1, need - 1), fixed).parts[0].gpu);
  EXPECT_EQ(refusal(smollm2(), gpu_cluster(1, need), resident(DeviceChoice::kGpu)),
            "it was planned");
}

TEST(GpuChoice, TooLittleGpuMemoryNamesBytesAndAContextThatFits) {
  PlanRequest request = resident(DeviceChoice::kGpu);
  request.context = 8192;
  const Plan plan = make_plan(smollm2(), gpu_cluster(), request);
  const int64_t most = plan.rank_bytes(0, "", "gpu") - 1;
  const std::string said = refusal(smollm2(), gpu_cluster(1, most), request);
  expect_says(said, {"rank 0 needs", "of GPU memory (", "kv ", "weights ", " free",
                     "GPU 3 Made Up 9000", "--device cpu"});
  EXPECT_EQ(said.find("start more ranks"), std::string::npos) << said;
  const size_t at = said.find("(-c ");
  ASSERT_NE(at, std::string::npos) << said;
  request.context = std::stoll(said.substr(at + 4));
  EXPECT_LT(request.context, 8192);
  EXPECT_EQ(refusal(smollm2(), gpu_cluster(1, most), request), "it was planned");
  request.context += plan.kv.page_tokens;
  expect_says(refusal(smollm2(), gpu_cluster(1, most), request), {"of GPU memory"});
  expect_says(refusal(smollm2(), gpu_cluster(1, 1 << 20), request),
              {"no context fits", "free the GPU", "--device cpu"});
}

TEST(GpuChoice, AHostTooSmallForItsPartOfAGpuPlan) {
  ClusterSpec cluster = gpu_cluster();
  cluster.ranks[0].memory_free_bytes = 1 << 20;
  const std::string said = refusal(smollm2(), cluster, on(DeviceChoice::kGpu));
  expect_says(said, {"rank 0 needs", "(program ", "1.00 MiB free", "free memory on this host"});
  EXPECT_EQ(said.find("-c "), std::string::npos)
      << "a smaller cache spares no host memory: " << said;
}

TEST(GpuChoice, WhatCannotBeIsRefusedWithAWayOut) {
  expect_says(refusal(smollm2(), measured_cluster(1), on(DeviceChoice::kGpu)),
              {"rank 0 has no GPU", "host host0", "--device cpu"});
  expect_says(refusal(heads_of_72(), gpu_cluster(), on(DeviceChoice::kGpu)),
              {"heads have 72 values", "multiple of 16", "--device cpu"});
}

TEST(GpuChoice, AutoLeavesAGpuThatCannotDoIt) {
  EXPECT_FALSE(make_plan(heads_of_72(), gpu_cluster(), on(DeviceChoice::kAuto)).parts[0].gpu);
  EXPECT_TRUE(make_plan(tiny_stories(), gpu_cluster(), on(DeviceChoice::kAuto)).parts[0].gpu);
}

TEST(GpuChoice, StepsAreLongerOnAGpuWhereTheRequestSaysSo) {
  PlanRequest request = on(DeviceChoice::kAuto);
  EXPECT_EQ(make_plan(smollm2(), gpu_cluster(), request).limits.max_rows, 512);
  request.gpu_rows = 2048;
  EXPECT_EQ(make_plan(smollm2(), gpu_cluster(), request).limits.max_rows, 2048);
  EXPECT_EQ(make_plan(smollm2(), measured_cluster(1), request).limits.max_rows, 512);
}

TEST(GpuChoice, TheFingerprintSeesIt) {
  const Plan plan = make_plan(smollm2(), measured_cluster(1), on(DeviceChoice::kAuto));
  Plan other = plan;
  other.parts[0].gpu = true;
  EXPECT_NE(plan_fingerprint(other), plan_fingerprint(plan));
  other = plan;
  other.ledger[0].place = "gpu";
  EXPECT_NE(plan_fingerprint(other), plan_fingerprint(plan));
}

TEST(GpuChoice, AStageIsOfOneKind) {
  PlanRequest request = on(DeviceChoice::kCpu);
  request.split = parse_split("1:1+1");
  Plan plan = make_plan(smollm2(), measured_cluster(3), request);
  plan.parts[2].gpu = true;
  EXPECT_TRUE(check_plan(plan, smollm2()).empty());
  plan.parts[1].gpu = true;
  const auto faults = check_plan(plan, smollm2());
  ASSERT_EQ(faults.size(), 1u);
  EXPECT_EQ(faults[0], "stage 0 has 1 ranks on GPUs and 1 on CPUs");
}

// Every buffer by hand: SmolLM2 has 30 layers, dim 576, 9 and 3 heads of 64, ff 1536, 49 152
// tokens.
TEST(GpuLedger, EveryBufferByHand) {
  PlanRequest request = on(DeviceChoice::kGpu);
  request.context = 64;
  request.limits.max_rows = 10;  // 16 with padding
  request.limits.max_sequences = 2;
  request.limits.max_logit_rows = 1;  // 8 with padding
  const ModelSpec model = smollm2();
  const Plan plan = make_plan(model, gpu_cluster(), request);
  ASSERT_EQ(plan.kv.n_pages, 4);
  const std::pair<const char*, int64_t> expected[] = {
      {"x", 36864},
      {"normed", 36864},
      {"normed.q8", 9216},
      {"normed.blocks", 2304},
      {"normed.bf16", 18432},
      {"attended", 36864},
      {"attended.q8", 9216},
      {"attended.blocks", 2304},
      {"attended.bf16", 18432},
      {"gated", 98304},
      {"gated.q8", 24576},
      {"gated.blocks", 6144},
      {"gated.bf16", 49152},
      {"logit_x", 18432},
      {"logit_x.q8", 4608},
      {"logit_x.blocks", 1152},
      {"logit_x.bf16", 9216},
      {"qkv", 61440},
      {"gate_up", 196608},
      {"rope.cos", 2048},
      {"rope.sin", 2048},
      {"rope.angles", 256},
      {"step", 5440},        // 16 * 16 + 64 * 16 + 4 * 4 + 8 * 4 + 4096 = 5424, to a multiple of 64
      {"attend", 794112},    // 768 / 3 + 64 pieces, 9 heads, 66 floats; 32768 + 1024
      {"scratch", 1769472},  // 1536 x 576 in bf16
      {"library", 33554432},
      {"logits", 1572864},    // 8 x 49152 floats
      {"topk", 1114112},      // 8 x 256 x 8 x 64 + 65536
      {"candidates", 16384},  // 8 x 256 x 8
  };
  const BufferList list =
      gpu_activation_buffers(model, plan.parts[0], plan.limits, plan.kv, true, 1);
  ASSERT_EQ(list.buffers.size(), std::size(expected));
  int64_t sum = 0;
  for (size_t i = 0; i < std::size(expected); ++i) {
    EXPECT_EQ(list.buffers[i].name, expected[i].first);
    EXPECT_EQ(list.buffers[i].bytes, expected[i].second) << expected[i].first;
    sum += expected[i].second;
  }
  EXPECT_EQ(plan.rank_bytes(0, "activations", "gpu"), sum);
  const BufferList inner =
      gpu_activation_buffers(model, plan.parts[0], plan.limits, plan.kv, false, 1);
  for (const char* name : {"logit_x", "logits", "topk", "candidates"}) {
    EXPECT_EQ(inner.bytes_of(name), 0) << name;
  }
}

TEST(GpuLedger, AttentionsWorkspaceByHand) {
  // The blocks of a GPU over its KV heads, and one more for each sequence.
  EXPECT_EQ(attend_workspace_bytes_bound(2048, 32, 32, 8, 128),
            (96 + 32) * 32 * 130 * 4 + 32768 + 1024);
  // One KV head takes all blocks of a GPU.
  EXPECT_EQ(attend_workspace_bytes_bound(512, 1, 4, 1, 256), 769 * 4 * 258 * 4 + 32768 + 1024);
  // Heads of 80 are no whole blocks of 32: all rows once more.
  EXPECT_EQ(attend_workspace_bytes_bound(512, 1, 32, 32, 80),
            (24 + 1) * 32 * 82 * 4 + 512 * 32 * 80 * 4 + 32768 + 1024);
  EXPECT_EQ(attend_workspace_bytes_bound(512, 1, 0, 0, 64), 0);
}

TEST(GpuLedger, WindowsHaveTablesOfTheirOwn) {
  ModelSpec model = smollm2();
  model.window_rope = model.rope;
  model.window_rope->n_rot = 32;
  const Plan plan = make_plan(model, gpu_cluster(), on(DeviceChoice::kGpu));
  const BufferList list =
      gpu_activation_buffers(model, plan.parts[0], plan.limits, plan.kv, true, 1);
  EXPECT_EQ(list.bytes_of("window_rope.cos"), 512 * 16 * 4);
  EXPECT_EQ(list.bytes_of("window_rope.sin"), 512 * 16 * 4);
  EXPECT_EQ(list.bytes_of("window_rope.angles"), 128);
}

TEST(GpuLedger, PlacesAddUp) {
  const ModelSpec model = smollm2();
  const Plan cpu = make_plan(model, gpu_cluster(), on(DeviceChoice::kCpu));
  const Plan gpu = make_plan(model, gpu_cluster(), on(DeviceChoice::kGpu));
  EXPECT_EQ(cpu.rank_bytes(0, "", "gpu"), 0);
  EXPECT_EQ(cpu.rank_bytes(0, "", "host"), cpu.rank_bytes(0));
  EXPECT_EQ(gpu.rank_bytes(0, "", "host") + gpu.rank_bytes(0, "", "gpu"), gpu.rank_bytes(0));
  for (const char* name : {"weights", "kv"}) {  // the same layout on both sides
    EXPECT_EQ(gpu.rank_bytes(0, name, "gpu"), cpu.rank_bytes(0, name)) << name;
    EXPECT_EQ(gpu.rank_bytes(0, name, "host"), 0) << name;
  }
  const int64_t messages = message_buffers(model, gpu.parts[0], gpu.limits, true).total();
  EXPECT_GT(messages, 0);
  EXPECT_EQ(gpu.rank_bytes(0, "activations", "host"), messages);
  // The loader's 128 MiB, of which KV cache and activations fill a part afterwards.
  const int64_t later = gpu.rank_bytes(0, "kv", "gpu") + gpu.rank_bytes(0, "activations", "gpu");
  EXPECT_LT(later, int64_t{128} << 20);
  EXPECT_EQ(gpu.rank_bytes(0, "program", "gpu") + later, kCudaContextBytes + (int64_t{128} << 20));
  const int64_t pinned =
      pinned_buffers(model, gpu.parts[0], gpu.limits, gpu.kv, true).total() + (int64_t{128} << 20);
  EXPECT_EQ(gpu.rank_bytes(0, "program", "host"), cpu.rank_bytes(0, "program") + pinned);
  std::string details;
  for (const LedgerLine& line : gpu.ledger) {
    if (line.name == "program") details += line.place + " " + line.detail + "; ";
  }
  EXPECT_EQ(details,
            "host program, MPI, gRPC; host pinned staging; gpu CUDA context; gpu loading; ");
}

TEST(GpuTable, HasARowAPlaceAndNamesTheGpu) {
  const ModelSpec model = smollm2();
  const ClusterSpec cluster = gpu_cluster();
  const std::string table =
      plan_table(make_plan(model, cluster, on(DeviceChoice::kGpu)), model, cluster);
  std::istringstream lines(table);
  std::string line;
  std::string places;
  while (std::getline(lines, line)) {
    EXPECT_LE(line.size(), 100u) << line;
    if (line.find(" gpu ") != std::string::npos) places += "gpu ";
    if (line.find(" host ") != std::string::npos && line.find("rank") == std::string::npos) {
      places += "host ";
    }
    if (line.find(" all ") == 1) places += "all";
  }
  EXPECT_EQ(places, "gpu host all") << table;
  expect_says(table, {"place", "GPU 3 Made Up 9000, 79.00 GiB free", "80896.00"});
  EXPECT_EQ(table.find("not used"), std::string::npos) << table;
  const std::string cpu =
      plan_table(make_plan(model, cluster, on(DeviceChoice::kCpu)), model, cluster);
  expect_says(cpu, {"GPU 3 Made Up 9000, 79.00 GiB free, not used"});
  EXPECT_EQ(cpu.find("place"), std::string::npos) << cpu;
}

TEST(GpuCost, IsBytesOverAShareOfTheRatePlusLaunches) {
  const ModelSpec model = smollm2();
  const ClusterSpec cluster = gpu_cluster();
  const Plan plan = make_plan(model, cluster, on(DeviceChoice::kGpu));
  const Prediction p = predict(plan, model, cluster, 100);
  // Layers' matrices and the head; norms are no matrices: (2 * 30 + 1) * 576 floats.
  const auto bytes = static_cast<double>(plan.rank_bytes(0, "weights") - 61 * 576 * 4);
  EXPECT_NEAR(p.matrix_ms, bytes / (0.925 * 3000e6), 1e-9);
  EXPECT_NEAR(p.launch_ms, 30 * 7 * 0.0022, 1e-9);
  EXPECT_NEAR(p.attention_ms, 2.0 * 100 * 3 * 64 * 2 * 30 / (0.925 * 3000e6), 1e-9);
  EXPECT_TRUE(p.measured_cluster);
  ClusterSpec unmeasured = cluster;
  unmeasured.ranks[0].gpu.read_gb_per_s = 0;
  EXPECT_FALSE(predict(plan, model, unmeasured, 100).measured_cluster);
  EXPECT_GT(predict(plan, model, unmeasured, 100).total_ms, p.total_ms);
}

TEST(GpuCost, PrefillFollowsTheMeasuredProducts) {
  const ModelSpec model = smollm2();
  ClusterSpec cluster = gpu_cluster();
  PlanRequest request = on(DeviceChoice::kGpu);
  request.context = 4096;
  request.gpu_rows = 2048;
  const Plan plan = make_plan(model, cluster, request);
  const double assumed = predict(plan, model, cluster, 0).prefill_tok_per_s;
  cluster.ranks[0].gpu.matrix_tflops = 300;
  EXPECT_DOUBLE_EQ(predict(plan, model, cluster, 0).prefill_tok_per_s, assumed);
  cluster.ranks[0].gpu.matrix_tflops = 3;
  EXPECT_LT(predict(plan, model, cluster, 0).prefill_tok_per_s, assumed / 10);
}

TEST(LikeRanks, WithAnotherGpuAreNotAlike) {
  ClusterSpec cluster = gpu_cluster(3);
  for (RankSpec& rank : cluster.ranks) rank.host = "one";
  cluster.ranks[1].gpu.read_gb_per_s = 1000;
  EXPECT_EQ(like_ranks_equal(cluster).ranks[1].gpu.read_gb_per_s, 3000);
  cluster.ranks[1].gpu.name = "Another";
  EXPECT_EQ(like_ranks_equal(cluster).ranks[1].gpu.read_gb_per_s, 1000);
}

}  // namespace
}  // namespace spillway

// Plans for several GPUs: which stages compute on them, what moves to where there is memory, what
// ranks that share one get, where every byte lies, how fast it is said to be. The GPUs are made up.
#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

#include "kernels/core/error.h"
#include "parallel/cost.h"
#include "parallel/gpu_ledger.h"
#include "parallel/ledger.h"
#include "parallel/planner.h"
#include "parallel/shard.h"
#include "tests/parallel/made_up_gpus.h"
#include "tests/parallel/model_shapes.h"
#include "tests/parallel/refusal.h"

namespace spillway {
namespace {

using testing::expect_says;
using testing::gpus;
using testing::kGiB;
using testing::llama_70b;
using testing::measured_cluster;
using testing::on;
using testing::refusal;
using testing::smollm2;

// n ranks on one GPU.
ClusterSpec sharing(int n, int64_t gib) {
  ClusterSpec cluster = gpus(std::vector<int64_t>(static_cast<size_t>(n), gib));
  for (RankSpec& rank : cluster.ranks) {
    rank.gpu.uuid = cluster.ranks[0].gpu.uuid;
    rank.gpu.ordinal = 0;
  }
  return cluster;
}

PlanRequest by_rank(const std::vector<DeviceChoice>& devices, const std::string& split = "") {
  PlanRequest request = on(DeviceChoice::kAuto, split);
  request.devices = devices;
  return request;
}

constexpr DeviceChoice kAuto = DeviceChoice::kAuto;
constexpr DeviceChoice kCpu = DeviceChoice::kCpu;
constexpr DeviceChoice kGpu = DeviceChoice::kGpu;

// "gg+c": a letter a rank, stages joined by +.
std::string devices_of(const Plan& plan) {
  std::string out;
  for (const StagePlan& stage : plan.stages) {
    if (!out.empty()) out += '+';
    for (const int rank : stage.ranks) out += plan.parts[static_cast<size_t>(rank)].gpu ? 'g' : 'c';
  }
  return out;
}

std::string planned(const ModelSpec& model, const ClusterSpec& cluster,
                    const PlanRequest& request) {
  const Plan plan = make_plan(model, cluster, request);
  EXPECT_EQ(check_plan(plan, model), std::vector<std::string>{});
  return devices_of(plan);
}

bool fits(const Plan& plan, const ClusterSpec& cluster) {
  return std::all_of(plan.parts.begin(), plan.parts.end(), [&](const RankPart& part) {
    const RankSpec& rank = cluster.ranks[static_cast<size_t>(part.rank)];
    return plan.rank_bytes(part.rank, "", "gpu") <= rank.gpu.free_bytes &&
           plan.rank_bytes(part.rank, "", "host") <= rank.memory_free_bytes;
  });
}

TEST(SeveralGpus, AllRanksWithOneComputeOnThem) {
  for (const DeviceChoice device : {kAuto, kGpu}) {
    EXPECT_EQ(planned(smollm2(), gpus({80, 80, 80}), on(device, "1:1:1")), "ggg");
    EXPECT_EQ(planned(smollm2(), gpus({80, 80, 80}), on(device, "1:1+1")), "gg+g");
    EXPECT_EQ(planned(smollm2(), gpus({80, 80, 80, 80}), on(device, "1+2:1+1")), "g+gg+g");
  }
  EXPECT_EQ(planned(smollm2(), gpus({80, 80}), on(kCpu, "1:1")), "cc");
}

TEST(SeveralGpus, AStageWithARankThatHasNoneComputesOnTheCpu) {
  EXPECT_EQ(planned(smollm2(), gpus({80, 80, 0}), on(kAuto, "1:1:1")), "ccc");
  EXPECT_EQ(planned(smollm2(), gpus({80, 80, 0}), on(kAuto, "1:1+1")), "gg+c");
  EXPECT_EQ(planned(smollm2(), gpus({80, 0, 80}), on(kAuto, "1:1+1")), "cc+g");
  const std::string said = refusal(smollm2(), gpus({80, 80, 0}), on(kGpu, "1:1+1"));
  expect_says(said, {"rank 2 has no GPU", "host one", "--device gpu", "--device cpu"});
}

TEST(SeveralGpus, TwoEqualOnesShareEveryLayer) {
  const Plan plan = make_plan(llama_70b(), gpus({80, 80}), on(kAuto));
  EXPECT_EQ(devices_of(plan), "gg");
  EXPECT_EQ(plan.stages[0].shares, (std::vector<double>{0.5, 0.5}));
  const Plan four = make_plan(llama_70b(), gpus({80, 80, 80, 80}), on(kAuto));
  EXPECT_EQ(devices_of(four), "gggg");
}

TEST(SeveralGpus, FreeSplitsKeepKindsApart) {
  // The rank without one gets the fewest layers that a stage can have.
  ClusterSpec cluster = gpus({0, 80, 80});
  for (RankSpec& rank : cluster.ranks) {
    rank.read_gb_per_s = 100;
    rank.matrix_gop_per_s = 10000;
  }
  const Plan plan = make_plan(llama_70b(), cluster, on(kAuto));
  EXPECT_EQ(devices_of(plan), "c+gg");
  EXPECT_EQ(plan.stages[0].layers.size(), 1);
  EXPECT_EQ(plan.stages[1].shares, (std::vector<double>{0.5, 0.5}));
}

TEST(SeveralGpus, FasterOnesGetMore) {
  ClusterSpec cluster = gpus({80, 80});
  cluster.ranks[1].gpu.name = "Another";
  cluster.ranks[1].gpu.read_gb_per_s = 1000;
  PlanRequest request = on(kAuto);
  request.tp = 2;
  EXPECT_EQ(make_plan(llama_70b(), cluster, request).stages[0].shares,
            (std::vector<double>{0.75, 0.25}));
  request.tp = 1;
  // One sequence decodes on one stage at a time: the slow one has as little as can be.
  EXPECT_EQ(make_plan(llama_70b(), cluster, request).stages[0].layers.size(), 79);
  cluster.ranks[1].gpu.read_gb_per_s = 2900;  // within what probes scatter: 41.2 and 38.8
  EXPECT_EQ(make_plan(llama_70b(), cluster, request).stages[0].layers.size(), 41);
}

TEST(SeveralGpus, LayersAndSharesMoveToWhereThereIsMemory) {
  // 38 GiB of weights on 24 + 20 GiB: halves of them do not fit the smaller one.
  const ClusterSpec cluster = gpus({25, 20});
  for (const int tp : {1, 2}) {
    PlanRequest request = on(kAuto);
    request.tp = tp;
    const Plan plan = make_plan(llama_70b(), cluster, request);
    EXPECT_EQ(devices_of(plan), tp == 1 ? "g+g" : "gg");
    EXPECT_TRUE(fits(plan, cluster));
    EXPECT_TRUE(check_plan(plan, llama_70b()).empty());
    if (tp == 1) {
      EXPECT_GT(plan.stages[0].layers.size(), 40);
    } else {
      // By memory, 25:20, and from there to what is fastest.
      EXPECT_NEAR(plan.stages[0].shares[0], 25.0 / 45, 0.05);
      EXPECT_GT(plan.stages[0].shares[0], 0.5);
    }
    // The same by hand is what the user asked for, and an error.
    request.tp = 0;
    request.split = parse_split(tp == 1 ? "1+1" : "1:1");
    request.places = parse_places("layers all = resident");
    EXPECT_NE(devices_of(make_plan(llama_70b(), cluster, request)), devices_of(plan));
    request.device = kGpu;
    expect_says(refusal(llama_70b(), cluster, request),
                {"rank 1 needs", "of GPU memory (weights ", "has 20.00 GiB free", "host one",
                 "GPU 1 Made Up 20 (GPU-00000001)", "--split", "--device cpu"});
  }
}

TEST(SeveralGpus, WhatDoesNotFitComputesOnTheCpu) {
  const ClusterSpec cluster = gpus({24, 12});
  PlanRequest request = on(kAuto);
  request.places = parse_places("layers all = resident");
  request.pp = 2;
  const Plan plan = make_plan(llama_70b(), cluster, request);
  EXPECT_EQ(devices_of(plan), "g+c");
  EXPECT_TRUE(fits(plan, cluster));
  EXPECT_GT(plan.stages[0].layers.size(), 40);  // as many as the GPU holds
  EXPECT_GT(plan.rank_bytes(0, "", "gpu"), 22 * kGiB);
  request.pp = 0;
  request.tp = 2;
  EXPECT_EQ(planned(llama_70b(), cluster, request), "cc");
  request.tp = 0;
  EXPECT_EQ(planned(llama_70b(), cluster, request), "g+c");
  request.tp = 2;
  request.device = kGpu;
  expect_says(refusal(llama_70b(), cluster, request), {"rank ", " needs", "of GPU memory"});
  EXPECT_EQ(planned(smollm2(), cluster, request), "gg");
}

TEST(SeveralGpus, StepsAreAsLongOnAllStages) {
  PlanRequest request = on(kAuto, "1+1");
  request.gpu_rows = 2048;
  const Plan mixed = make_plan(smollm2(), gpus({80, 0}), request);
  EXPECT_EQ(devices_of(mixed), "g+c");
  EXPECT_EQ(mixed.limits.max_rows, 2048);
  EXPECT_EQ(make_plan(smollm2(), gpus({0, 80}), request).limits.max_rows, 2048);
  EXPECT_EQ(make_plan(smollm2(), gpus({0, 0}), request).limits.max_rows, 512);
}

TEST(DeviceList, SaysWhereEachRankComputes) {
  const ClusterSpec cluster = gpus({80, 80, 80});
  EXPECT_EQ(planned(smollm2(), cluster, by_rank({kGpu, kGpu, kCpu}, "1:1+1")), "gg+c");
  EXPECT_EQ(planned(smollm2(), cluster, by_rank({kCpu, kGpu, kGpu}, "1+1:1")), "c+gg");
  EXPECT_EQ(planned(smollm2(), cluster, by_rank({kGpu, kAuto, kCpu}, "1:1+1")), "gg+c");
  EXPECT_EQ(planned(smollm2(), gpus({80, 80, 0}), by_rank({kGpu, kGpu, kCpu}, "1:1+1")), "gg+c");
  // Free splits that mix them are not among the candidates.
  const std::string free = planned(smollm2(), cluster, by_rank({kGpu, kGpu, kCpu}));
  EXPECT_TRUE(free == "gg+c" || free == "g+g+c") << free;
}

TEST(DeviceList, WhatCannotBeIsRefused) {
  const ClusterSpec cluster = gpus({80, 80, 80});
  expect_says(refusal(smollm2(), cluster, by_rank({kGpu, kCpu})),
              {"--device gpu,cpu names 2 devices", "the job has 3 ranks", "one a rank"});
  expect_says(refusal(smollm2(), cluster, by_rank({kGpu, kGpu, kCpu}, "1:1:1")),
              {"ranks 0 and 1 compute on GPUs and 2 may not", "--device gpu,gpu,cpu", "--split"});
  expect_says(refusal(smollm2(), gpus({80, 0}), by_rank({kGpu, kGpu}, "1+1")),
              {"rank 1 has no GPU", "--device gpu,gpu"});
  EXPECT_TRUE(mixes_devices(parse_split("1:1:1"), by_rank({kGpu, kGpu, kCpu})));
  EXPECT_TRUE(mixes_devices(parse_split("1+1:1"), by_rank({kGpu, kGpu, kCpu})));
  EXPECT_FALSE(mixes_devices(parse_split("1:1+1"), by_rank({kGpu, kGpu, kCpu})));
  EXPECT_FALSE(mixes_devices(parse_split("1:1"), by_rank({kGpu, kGpu, kCpu})));  // fewer ranks
  EXPECT_FALSE(mixes_devices(parse_split("1:1:1"), on(kGpu)));
}

TEST(SharedGpu, IsRefusedUnlessTheUserKnows) {
  ClusterSpec cluster = gpus({80, 40, 80});
  cluster.ranks[2].gpu = cluster.ranks[0].gpu;
  for (const DeviceChoice device : {kAuto, kGpu}) {
    PlanRequest request = on(device, "1:1:1");
    const std::string said = refusal(smollm2(), cluster, request);
    expect_says(said, {"3 ranks for 2 GPUs: ranks 0 and 2 would share GPU 0 Made Up 80 "
                       "(GPU-00000000)",
                       "host one", "start 2 ranks there", "--share-gpus", "--device cpu"});
    request.share_gpus = true;
    EXPECT_EQ(planned(smollm2(), cluster, request), "ggg");
  }
  EXPECT_EQ(planned(smollm2(), cluster, on(kCpu, "1:1:1")), "ccc");
  // A rank on its CPU takes no GPU from others.
  cluster.ranks[2].gpu = {};
  EXPECT_EQ(planned(smollm2(), cluster, by_rank({kGpu, kGpu, kCpu}, "1:1+1")), "gg+c");
  expect_says(refusal(smollm2(), sharing(2, 80), on(kAuto)),
              {"2 ranks for 1 GPU: ranks 0 and 1", "start 1 rank there"});
  // The same UUID on another host is another GPU.
  cluster = sharing(2, 80);
  cluster.ranks[1].host = "two";
  EXPECT_EQ(planned(smollm2(), cluster, on(kAuto, "1:1")), "gg");
}

TEST(SharedGpu, AModelThatGpusCannotComputeIsNoReasonToRefuse) {
  ModelSpec model = smollm2();
  model.head_dim = 72;
  model.n_heads = 8;
  model.n_kv_heads = 2;
  for (LayerSpec& layer : model.layers) layer.k.rows = layer.v.rows = 144;
  EXPECT_EQ(planned(model, sharing(2, 80), on(kAuto, "1:1")), "cc");
  expect_says(refusal(model, gpus({80, 80}), on(kGpu, "1:1")), {"heads have 72 values"});
}

TEST(SharedGpu, ItsMemoryAndRatesAreDivided) {
  ClusterSpec cluster = sharing(3, 30);
  cluster.ranks[1].gpu.free_bytes = 24 * kGiB;  // the others' contexts were there already
  const ClusterSpec shared = with_shared_gpus(cluster);
  for (const RankSpec& rank : shared.ranks) {
    EXPECT_EQ(rank.gpu.free_bytes, 8 * kGiB);
    EXPECT_EQ(rank.gpu.read_gb_per_s, 1000);
    EXPECT_EQ(rank.gpu.total_bytes, 30 * kGiB);
  }
  EXPECT_EQ(ranks_on_gpu(cluster, 1), (std::vector<int>{0, 1, 2}));
  EXPECT_TRUE(ranks_on_gpu(gpus({0, 80}), 0).empty());
  PlanRequest request = on(kGpu, "1:1:1");
  request.share_gpus = true;
  request.places = parse_places("layers all = resident");
  const Plan plan = make_plan(smollm2(), cluster, request);
  for (RankSpec& rank : cluster.ranks) rank.gpu.free_bytes = 3 * plan.rank_bytes(0, "", "gpu");
  EXPECT_EQ(refusal(smollm2(), cluster, request), "it was planned");
  for (RankSpec& rank : cluster.ranks) rank.gpu.free_bytes -= 3;
  expect_says(refusal(smollm2(), cluster, request), {"rank 0 needs", "of GPU memory"});
  expect_says(plan_table(plan, smollm2(), sharing(3, 30)),
              {"rank 1: GPU 0 Made Up 30 (GPU-00000000), 10.00 GiB free, a share of 3\n"});
}

TEST(SeveralGpusTable, NamesEachRanksGpu) {
  const ClusterSpec cluster = gpus({24, 12, 0});
  const Plan plan = make_plan(smollm2(), cluster, on(kAuto, "2:1+1"));
  const std::string table = plan_table(plan, smollm2(), cluster);
  std::istringstream lines(table);
  std::string line;
  while (std::getline(lines, line)) EXPECT_LE(line.size(), 100U) << line;
  expect_says(table, {" rank 0: GPU 0 Made Up 24 (GPU-00000000), 24.00 GiB free\n",
                      " rank 1: GPU 1 Made Up 12 (GPU-00000001), 12.00 GiB free\n",
                      "TP2 (2:1) + TP1", " 66.7% ", " 33.3% "});
  EXPECT_EQ(table.find("rank 2: GPU"), std::string::npos) << table;
}

TEST(SeveralGpusLedger, AGroupHasPartialsAndACommunicator) {
  const ModelSpec model = smollm2();
  const PlanRequest request = on(kGpu, "1:1+1");
  const Plan plan = make_plan(model, gpus({80, 80, 80}), request);
  const int64_t rows = plan.limits.max_rows;
  const BufferList first =
      gpu_activation_buffers(model, plan.parts[1], plan.limits, plan.kv, false, 2);
  ASSERT_EQ(first.buffers[0].name, "x");
  ASSERT_EQ(first.buffers[1].name, "partial");
  EXPECT_EQ(first.buffers[1].bytes, rows * 576 * 4);
  const BufferList alone =
      gpu_activation_buffers(model, plan.parts[2], plan.limits, plan.kv, true, 1);
  EXPECT_EQ(alone.bytes_of("partial"), 0);
  const auto line = [&plan](int rank, const std::string& detail) {
    int64_t bytes = 0;
    for (const LedgerLine& l : plan.ledger) {
      if (l.rank == rank && l.detail == detail && l.place == "gpu") bytes += l.bytes;
    }
    return bytes;
  };
  // With what the loader takes beyond the KV cache and the activations that come in its place.
  const auto program = [&](int rank) {
    const int64_t later =
        plan.rank_bytes(rank, "kv", "gpu") + plan.rank_bytes(rank, "activations", "gpu");
    EXPECT_EQ(line(rank, "loading"), (int64_t{128} << 20) - later);
    return plan.rank_bytes(rank, "program", "gpu") - line(rank, "loading");
  };
  for (const int rank : {0, 1}) {
    EXPECT_EQ(line(rank, "comm"), device_comm_bytes(2, rows, 576));
    EXPECT_GT(line(rank, "comm"), 0);
    EXPECT_EQ(line(rank, "NCCL and CUDA with other GPUs"), kGroupContextBytes);
    EXPECT_EQ(plan.rank_bytes(rank, "activations", "gpu"),
              gpu_activation_buffers(model, plan.parts[static_cast<size_t>(rank)], plan.limits,
                                     plan.kv, false, 2)
                      .total() +
                  line(rank, "comm") + line(rank, "hops"));
    EXPECT_EQ(program(rank), kCudaContextBytes + kGroupContextBytes);
  }
  EXPECT_EQ(line(2, "comm"), 0);
  EXPECT_EQ(program(2), kCudaContextBytes + kGroupContextBytes);
  EXPECT_EQ(device_comm_bytes(1, rows, 576), 0);
  EXPECT_EQ(device_comm_pinned_bytes(1, rows, 576), 0);
  // The groups are all there is.
  for (int rank = 0; rank < 3; ++rank) {
    int64_t sum = 0;
    for (const char* name : {"weights", "kv", "activations", "program"}) {
      sum += plan.rank_bytes(rank, name, "gpu");
    }
    EXPECT_EQ(sum, plan.rank_bytes(rank, "", "gpu"));
  }
}

TEST(SeveralGpusShares, TwoToOneIsMetOverAWholeModel) {
  for (const char* split : {"2:1", "1:2", "5:3", "3:2:1", "24:12"}) {
    const std::vector<StagePin> pins = parse_split(split);
    std::vector<int64_t> gib(pins[0].shares.size(), 80);
    const Plan plan = make_plan(llama_70b(), gpus(gib), on(kGpu, split));
    for (size_t i = 0; i < gib.size(); ++i) {
      EXPECT_NEAR(plan.stages[0].achieved[i], plan.stages[0].shares[i], 0.005) << split;
      // The cache follows as well.
      const double kv = static_cast<double>(plan.rank_bytes(static_cast<int>(i), "kv"));
      double all = 0;
      for (int r = 0; r < plan.n_ranks(); ++r) {
        all += static_cast<double>(plan.rank_bytes(r, "kv"));
      }
      EXPECT_NEAR(kv / all, plan.stages[0].shares[i], 0.02) << split;
    }
  }
}

TEST(SeveralGpusCost, SumsBetweenPeersByHand) {
  const ModelSpec model = smollm2();
  const ClusterSpec cluster = gpus({80, 80, 80});
  const Plan plan = make_plan(model, cluster, on(kGpu, "20@1:1+10@1"));
  const double peers_ms = 0.005 + 576 * 4 / 150e6;
  EXPECT_NEAR(predict(plan, model, cluster, 0).collective_ms, 41 * peers_ms, 1e-9);
  const double link_ms = 0.005 + 576 * 4 / 2e6;  // the assumed link: 5 us, 2 GB/s
  const double copy_ms = 0.02 + 576 * 4 / 50e6;
  // Over the network, and where ranks share a GPU, sums pass through the hosts.
  ClusterSpec hosts = cluster;
  hosts.ranks[1].host = "two";
  EXPECT_NEAR(predict(plan, model, hosts, 0).collective_ms, 41 * (link_ms + 2 * copy_ms), 1e-9);
  ClusterSpec shared = cluster;
  shared.ranks[1].gpu = shared.ranks[0].gpu;
  EXPECT_NEAR(predict(plan, model, shared, 0).collective_ms, 41 * (link_ms + 2 * copy_ms), 1e-9);
  // Stages on CPUs sum as they did.
  const Plan cpu = make_plan(model, cluster, on(kCpu, "20@1:1+10@1"));
  EXPECT_NEAR(predict(cpu, model, cluster, 0).collective_ms, 41 * (0.005 + 576 * 8 / 2e6), 1e-9);
  EXPECT_NEAR(predict(cpu, model, cluster, 0).hop_ms, 2 * 0.005 + link_ms, 1e-9);
}

TEST(SeveralGpusCost, TwoGpusAreWorthIt) {
  const ModelSpec model = llama_70b();
  const double one = make_plan(model, gpus({80}), on(kGpu)).prediction.decode_tok_per_s;
  const double tp = make_plan(model, gpus({80, 80}), on(kGpu, "1:1")).prediction.decode_tok_per_s;
  const double pp = make_plan(model, gpus({80, 80}), on(kGpu, "1+1")).prediction.decode_tok_per_s;
  EXPECT_GT(tp, 1.65 * one);
  EXPECT_LT(tp, 1.95 * one);
  EXPECT_LT(pp, one);
  EXPECT_GT(pp, 0.95 * one);
}

TEST(SeveralGpus, TheFingerprintIsOfThePlanAlone) {
  const ClusterSpec cluster = gpus({80, 80});
  const Plan plan = make_plan(smollm2(), cluster, on(kGpu, "1:1"));
  EXPECT_EQ(plan_fingerprint(make_plan(smollm2(), cluster, on(kAuto, "1:1"))),
            plan_fingerprint(plan));
  EXPECT_NE(plan_fingerprint(make_plan(smollm2(), cluster, on(kCpu, "1:1"))),
            plan_fingerprint(plan));
  ClusterSpec faster = cluster;
  for (RankSpec& rank : faster.ranks) rank.gpu.read_gb_per_s *= 2;
  EXPECT_EQ(plan_fingerprint(make_plan(smollm2(), faster, on(kGpu, "1:1"))),
            plan_fingerprint(plan));
}

}  // namespace
}  // namespace spillway

// What leaves a GPU's memory: as little as is needed, feed-forward halves first, multiplied by the
// CPU and over the bus at once where both are worth it, from the disk where the host is full.
#include "parallel/spill_search.h"

#include <gtest/gtest.h>

#include "parallel/cost.h"
#include "parallel/pins.h"
#include "parallel/planner.h"
#include "parallel/shortage.h"
#include "parallel/spill.h"
#include "parallel/stage_clock.h"
#include "tests/parallel/made_up_gpus.h"
#include "tests/parallel/refusal.h"

namespace spillway {
namespace {

using testing::gpus;
using testing::kGiB;
using testing::llama_70b;
using testing::llama_8b;
using testing::with_host_rates;

PlanRequest in_gpu_memory(const std::string& text) {
  PlanRequest request;
  request.device = DeviceChoice::kGpu;
  request.gpu_memory = parse_budgets("--gpu-memory", text);
  request.choose_cpu_rows = true;
  return request;
}

struct Counts {
  int attention = 0;  // not resident
  int feed_forward = 0;
  int by_place[kPlaces] = {};
};

Counts counts_of(const Plan& plan, int rank = 0) {
  Counts counts;
  for (const LayerPart& layer : plan.parts[static_cast<size_t>(rank)].layers) {
    counts.attention += layer.attention != Place::kResident ? 1 : 0;
    counts.feed_forward += layer.feed_forward != Place::kResident ? 1 : 0;
    ++counts.by_place[static_cast<int>(layer.feed_forward)];
  }
  return counts;
}

TEST(Spill, FeedForwardHalvesFirstAndNoMoreThanNeeded) {
  const ModelSpec model = llama_8b();
  const ClusterSpec cluster = with_host_rates(gpus({80}));
  const Plan whole = make_plan(model, cluster, {});
  const int64_t need = whole.rank_bytes(0, "", "gpu");
  const int64_t half =
      half_bytes(model, model.layers[0], whole.parts[0].layers[0], Half::kFeedForward);
  // Two slots of a half each are needed beside what is spilled: one half less than all the memory
  // there is costs three.
  PlanRequest request;
  request.gpu_memory = {{need - 1, 0}};
  Counts counts = counts_of(make_plan(model, cluster, request));
  EXPECT_EQ(counts.feed_forward, 3);
  EXPECT_EQ(counts.attention, 0);
  // Half a half for the page tables of what is pinned.
  request.gpu_memory = {{need - 10 * half + half / 2, 0}};
  counts = counts_of(make_plan(model, cluster, request));
  EXPECT_EQ(counts.feed_forward, 12);
  EXPECT_EQ(counts.attention, 0);
}

TEST(Spill, AttentionFollowsWhereFeedForwardIsNotEnough) {
  const ModelSpec model = llama_8b();
  const ClusterSpec cluster = with_host_rates(gpus({80}));
  const Plan plan = make_plan(model, cluster, in_gpu_memory("2750MiB"));
  const Counts counts = counts_of(plan);
  EXPECT_EQ(counts.feed_forward, 32);
  EXPECT_GT(counts.attention, 0);
  EXPECT_LE(plan.rank_bytes(0, "", "gpu"), int64_t{2750} << 20);
  for (const LayerPart& layer : plan.parts[0].layers) {
    EXPECT_TRUE(layer.attention == Place::kResident || layer.attention == Place::kStreamed);
  }
}

// 84 GB/s of the CPU beside 52 of the bus: 0.62 of the spilled bytes for the CPU.
TEST(Spill, CpuAndBusShareByTheirRates) {
  const ModelSpec model = llama_70b();
  const ClusterSpec cluster = with_host_rates(gpus({24}));
  const Plan plan = make_plan(model, cluster, in_gpu_memory("20GiB"));
  const Counts counts = counts_of(plan);
  const int on_cpu = counts.by_place[static_cast<int>(Place::kCpu)];
  const int hybrid = counts.by_place[static_cast<int>(Place::kHybrid)];
  if (hybrid > 0) {
    EXPECT_EQ(hybrid, counts.feed_forward);
    const LayerPart& layer = plan.parts[0].layers[40];
    if (!layer.ff_on_cpu.empty()) {
      EXPECT_NEAR(static_cast<double>(layer.ff_on_cpu.size()) / 28672.0, 0.62, 0.08);
    }
  } else {
    EXPECT_NEAR(static_cast<double>(on_cpu) / counts.feed_forward, 0.62, 0.08);
  }
  // Both at once are faster than either, and near the sum of both rates.
  const ClusterSpec& c = cluster;
  PlanRequest pinned = in_gpu_memory("20GiB");
  const auto all_in = [&](Place place) {
    pinned.places.clear();
    for (PlacePin pin : places_of(plan)) {
      pin.place = place;
      pinned.places.push_back(pin);
    }
    return make_plan(model, c, pinned).prediction.total_ms;
  };
  EXPECT_LT(plan.prediction.total_ms * 1.3, all_in(Place::kCpu));
  EXPECT_LT(plan.prediction.total_ms * 1.5, all_in(Place::kStreamed));
  const double spilled = static_cast<double>(plan.rank_bytes(0, "weights", "host"));
  const double waits = plan.prediction.cpu_ms + plan.prediction.bus_ms;
  EXPECT_GT(waits * 1.1, spilled / (136e6) - plan.prediction.matrix_ms);
  EXPECT_LT(waits, 1.2 * spilled / 136e6);
}

TEST(Spill, ASlowCpuIsLeftAloneAndASlowBusToo) {
  const ModelSpec model = llama_8b();
  const Plan slow_cpu =
      make_plan(model, with_host_rates(gpus({80}), 0.5, 50), in_gpu_memory("3GiB"));
  EXPECT_EQ(counts_of(slow_cpu).by_place[static_cast<int>(Place::kCpu)], 0);
  EXPECT_EQ(slow_cpu.limits.max_cpu_rows,
            StepLimits{}.max_cpu_rows);  // the request's, which nothing reads
  const Plan slow_bus =
      make_plan(model, with_host_rates(gpus({80}), 80, 0.5), in_gpu_memory("3GiB"));
  const Counts counts = counts_of(slow_bus);
  EXPECT_GT(counts.feed_forward, 0);
  EXPECT_EQ(counts.by_place[static_cast<int>(Place::kStreamed)], 0);
  EXPECT_EQ(counts.by_place[static_cast<int>(Place::kCpu)], counts.feed_forward);
  EXPECT_EQ(slow_bus.limits.max_cpu_rows, kMostCpuRows);
}

TEST(Spill, WhereTheHostIsFullTheDiskHoldsTheRest) {
  const ModelSpec model = llama_70b();
  ClusterSpec cluster = with_host_rates(gpus({24}));
  cluster.ranks[0].memory_free_bytes = 13 * kGiB;  // the page cache has room for little
  PlanRequest request = in_gpu_memory("20GiB");
  request.host_memory = parse_budgets("--host-memory", "12GiB");
  const Plan plan = make_plan(model, cluster, request);
  EXPECT_GT(counts_of(plan).by_place[static_cast<int>(Place::kDisk)], 0);
  EXPECT_GT(plan.rank_bytes(0, "weights", "disk"), 5 * kGiB);
  EXPECT_LE(plan.rank_bytes(0, "", "host"), 12 * kGiB);
  EXPECT_GT(plan.rank_bytes(0, "", "host"), 10 * kGiB);
  EXPECT_LE(plan.rank_bytes(0, "", "gpu"), 20 * kGiB);
  EXPECT_GT(plan.prediction.disk_ms, plan.prediction.bus_ms);
  // Bytes over the disk's rate bound the step.
  const double disk_ms = static_cast<double>(plan.rank_bytes(0, "weights", "disk")) / 2e6;
  EXPECT_GT(plan.prediction.total_ms, 0.8 * disk_ms);
}

// However quick the disk: what the GPU or the host holds is never read from it.
TEST(Spill, TheDiskIsTheLastPlace) {
  const ModelSpec model = llama_70b();
  ClusterSpec cluster = with_host_rates(gpus({80}));
  cluster.ranks[0].disk_gb_per_s = 1000;
  EXPECT_EQ(make_plan(model, cluster, {}).rank_bytes(0, "weights", "disk"), 0);
  const Plan roomy = make_plan(model, cluster, in_gpu_memory("20GiB"));
  EXPECT_GT(roomy.rank_bytes(0, "weights", "host"), 15 * kGiB);
  EXPECT_EQ(roomy.rank_bytes(0, "weights", "disk"), 0);
  // A host that lacks one byte of what that plan takes: as much goes to the disk as makes room for
  // itself and its slots, and the rest of the host stays in use.
  PlanRequest request = in_gpu_memory("20GiB");
  request.host_memory = {{roomy.rank_bytes(0, "", "host") - 1, 0}};
  const Plan tight = make_plan(model, cluster, request);
  EXPECT_TRUE(tight.parts[0].gpu);
  EXPECT_TRUE(check_plan(tight, model).empty());
  EXPECT_LE(shortage(tight).bytes, 0);
  const int64_t half =
      half_bytes(model, model.layers[0], tight.parts[0].layers[0], Half::kFeedForward);
  EXPECT_GT(tight.rank_bytes(0, "weights", "disk"), 0);
  EXPECT_LE(tight.rank_bytes(0, "weights", "disk"), 6 * half);
}

// A half from disk on a GPU: the read runs beside products and copies, and the slowest way counts.
TEST(SpillCost, ReadsFromDiskRunBesideTheBus) {
  const ModelSpec model = llama_70b();
  // memory: what is free on the host; what the plan leaves of it the page cache has.
  const auto step_ms = [&](const char* places, double disk_gb_per_s, int64_t memory,
                           double page_cache_gb_per_s) {
    ClusterSpec cluster = with_host_rates(gpus({80}));
    cluster.ranks[0].memory_free_bytes = memory;
    cluster.ranks[0].disk_gb_per_s = disk_gb_per_s;
    cluster.ranks[0].page_cache_gb_per_s = page_cache_gb_per_s;
    PlanRequest request;
    request.device = DeviceChoice::kGpu;
    request.places = parse_places(places);
    return make_plan(model, cluster, request).prediction;
  };
  const ClusterSpec any = with_host_rates(gpus({80}));
  PlanRequest request;
  request.device = DeviceChoice::kGpu;
  request.places = parse_places("layers all ffn = disk");
  const auto bytes =
      static_cast<double>(make_plan(model, any, request).rank_bytes(0, "weights", "disk"));
  constexpr int64_t kNoRoom = 2 * kGiB;  // beside slots, for some halves
  constexpr int64_t kRoom = 100 * kGiB;
  const Prediction resident = step_ms("layers all = resident", 2, kRoom, 1000);
  const Prediction streamed = step_ms("layers all ffn = streamed", 2, kRoom, 1000);
  // A disk slower than the bus bounds the step: its reads, one copy and one product are left.
  const Prediction slow = step_ms("layers all ffn = disk", 2, kNoRoom, 1000);
  EXPECT_GT(slow.total_ms, 0.97 * bytes / 2e6);
  EXPECT_LT(slow.total_ms, 1.02 * bytes / 2e6 + resident.total_ms / 40);
  EXPECT_GT(slow.disk_ms, 0.9 * bytes / 2e6);
  // One that is quicker costs no more than the bus; no disk makes a half quicker than the host's.
  const Prediction quick = step_ms("layers all ffn = disk", 1000, kNoRoom, 1000);
  EXPECT_GE(quick.total_ms, streamed.total_ms);
  EXPECT_LT(quick.total_ms, 1.01 * streamed.total_ms);
  // What the page cache has room for comes at its rate, whatever the disk's.
  const Prediction cached = step_ms("layers all ffn = disk", 0.1, kRoom, 4);
  EXPECT_GT(cached.total_ms, bytes / 4e6);
  EXPECT_LT(cached.total_ms, 1.02 * bytes / 4e6 + resident.total_ms / 40);
}

// 58 GB of pinned weights take 200 MB of page tables on the GPU: more than what the halves leave
// beyond the need. A shorter context is never refused where a longer one fits.
TEST(Spill, EveryContextUpToTheLongestFits) {
  const ModelSpec model = testing::model_of(
      {"123B", 88, 12288, 96, 8, 128, 28672, 32768, 131072, QuantType::kQ4_K, false});
  ClusterSpec cluster = with_host_rates(gpus({12}), 40, 26);
  cluster.ranks[0].gpu.free_bytes = 12'012'486'656;
  cluster.ranks[0].memory_free_bytes = 60'129'542'144;
  PlanRequest request = in_gpu_memory("12012486656B");
  request.gpu_rows = 256;
  request.limits.max_sequences = 1;
  for (const int64_t context : {32, 2048, 4096, 8192, 12000, 16384, 20000, 22720}) {
    request.context = context;
    EXPECT_EQ(testing::refusal(model, cluster, request), "it was planned") << context;
  }
  request.context = 0;
  request.objective = Objective::kContext;
  EXPECT_GE(make_plan(model, cluster, request).kv.context, 22720);
}

// What CPUs cannot hold lies on the disk, and no more than that.
TEST(Spill, CpusReadFromTheDiskWhatTheirMemoryLacks) {
  const ModelSpec model = llama_70b();
  for (const int n_ranks : {1, 2}) {
    ClusterSpec cluster = assumed_cluster(n_ranks);
    for (RankSpec& rank : cluster.ranks) rank.memory_free_bytes = 256 * kGiB / n_ranks;
    PlanRequest request;
    request.context = 512;
    const Plan roomy = make_plan(model, cluster, request);
    EXPECT_EQ(roomy.rank_bytes(0, "weights", "disk"), 0);
    const int64_t all = roomy.rank_bytes(0, "", "host");
    for (const int64_t less : {int64_t{1}, 3 * kGiB / n_ranks, 30 * kGiB / n_ranks}) {
      request.host_memory = {{n_ranks * (all - less), 0}};
      const Plan plan = make_plan(model, cluster, request);
      EXPECT_TRUE(check_plan(plan, model).empty());
      EXPECT_LE(shortage(plan).bytes, 0);
      const int64_t half =
          half_bytes(model, model.layers[0], plan.parts[0].layers[0], Half::kFeedForward);
      EXPECT_GE(plan.rank_bytes(0, "weights", "disk"), less);
      // The slots, and a half or two that were more than needed.
      EXPECT_LE(plan.rank_bytes(0, "weights", "disk"), less + (kDiskSlots + 2) * half);
    }
    request.host_memory = {{2 * kGiB, 0}};
    EXPECT_NE(testing::refusal(model, cluster, request).find("rank 0 needs"), std::string::npos);
  }
}

// Only where nothing else fits: an even smaller cache type or a shorter step comes first, and no
// weight leaves the memory for a longer context.
TEST(Spill, TheDiskOfCpusIsTheLastResort) {
  const ModelSpec model = llama_8b();
  ClusterSpec cluster = assumed_cluster(1);
  cluster.ranks[0].memory_free_bytes = 8 * kGiB;
  PlanRequest request;
  request.objective = Objective::kContext;
  const Plan longest = make_plan(model, cluster, request);
  EXPECT_EQ(longest.rank_bytes(0, "weights", "disk"), 0);
  EXPECT_GT(longest.kv.context, 4096);
  cluster.ranks[0].memory_free_bytes = 3 * kGiB;
  request.context = 512;
  EXPECT_GT(make_plan(model, cluster, request).rank_bytes(0, "weights", "disk"), kGiB);
}

TEST(Spill, WhatTheUserPlacedStays) {
  const ModelSpec model = llama_8b();
  const ClusterSpec cluster = with_host_rates(gpus({80}));
  PlanRequest request = in_gpu_memory("5GiB");
  request.places = parse_places("layers 0-9 = resident; layers 10-11 ffn = streamed");
  const Plan plan = make_plan(model, cluster, request);
  const auto& layers = plan.parts[0].layers;
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(layers[i].attention, Place::kResident);
    EXPECT_EQ(layers[i].feed_forward, Place::kResident);
  }
  EXPECT_EQ(layers[10].feed_forward, Place::kStreamed);
  EXPECT_EQ(layers[11].feed_forward, Place::kStreamed);
  EXPECT_GT(counts_of(plan).feed_forward, 8);
  EXPECT_LE(plan.rank_bytes(0, "", "gpu"), 5 * kGiB);
}

TEST(Spill, BiasesAreStreamedOnly) {
  ModelSpec model = llama_8b();
  for (LayerSpec& layer : model.layers) layer.up_bias = true;
  const Plan plan = make_plan(model, with_host_rates(gpus({80})), in_gpu_memory("3GiB"));
  const Counts counts = counts_of(plan);
  EXPECT_GT(counts.feed_forward, 0);
  EXPECT_EQ(counts.by_place[static_cast<int>(Place::kStreamed)], counts.feed_forward);
}

TEST(Spill, TpRanksSpillTheSameHalves) {
  const ModelSpec model = llama_70b();
  PlanRequest request = in_gpu_memory("12GiB");
  request.tp = 2;
  const ClusterSpec cluster = with_host_rates(gpus({24, 24}));
  const Plan plan = make_plan(model, cluster, request);
  EXPECT_TRUE(check_plan(plan, model).empty());
  EXPECT_LE(shortage(plan).bytes, 0);
  for (size_t i = 0; i < 80; ++i) {
    EXPECT_EQ(plan.parts[0].layers[i].feed_forward, plan.parts[1].layers[i].feed_forward);
    EXPECT_EQ(plan.parts[0].layers[i].attention, plan.parts[1].layers[i].attention);
  }
  EXPECT_GT(counts_of(plan, 1).feed_forward, 30);
}

TEST(Spill, StagesTakeLayersAsTheirMemoryIs) {
  const ModelSpec model = llama_70b();
  PlanRequest request = in_gpu_memory("20GiB,10GiB");
  request.pp = 2;
  const ClusterSpec cluster = with_host_rates(gpus({24, 12}));
  const Plan plan = make_plan(model, cluster, request);
  EXPECT_LE(shortage(plan).bytes, 0);
  EXPECT_TRUE(plan.parts[0].gpu && plan.parts[1].gpu);
  // No worse than by memory alone.
  request.pp = 0;
  request.split = parse_split("53@1+27@1");
  EXPECT_LE(plan.prediction.total_ms,
            1.002 * make_plan(model, cluster, request).prediction.total_ms);
}

// A prefill streams all: the bus bounds a chunk that is not large enough.
TEST(SpillCost, PrefillStreamsEverythingOncePerChunk) {
  const ModelSpec model = llama_70b();
  const ClusterSpec cluster = with_host_rates(gpus({24}));
  PlanRequest request = in_gpu_memory("20GiB");
  request.gpu_rows = 512;
  const Plan plan = make_plan(model, cluster, request);
  const double chunk_ms = 512e3 / plan.prediction.prefill_tok_per_s;
  const double bus_ms = static_cast<double>(plan.rank_bytes(0, "weights", "host")) / 52e6;
  EXPECT_GT(chunk_ms, bus_ms);
  EXPECT_LT(chunk_ms, 1.3 * bus_ms + plan.prediction.matrix_ms);
}

TEST(SpillCost, TermsAddUp) {
  const ModelSpec model = llama_70b();
  for (const char* budget : {"20GiB", "8GiB", "40GiB"}) {
    const Plan plan = make_plan(model, with_host_rates(gpus({80})), in_gpu_memory(budget));
    const Prediction& p = plan.prediction;
    EXPECT_NEAR(p.matrix_ms + p.attention_ms + p.launch_ms + p.collective_ms + p.hop_ms + p.cpu_ms +
                    p.bus_ms + p.disk_ms,
                p.total_ms, 1e-9);
    EXPECT_GT(p.total_ms, 0);
  }
}

}  // namespace
}  // namespace spillway

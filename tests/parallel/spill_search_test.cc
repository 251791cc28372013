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
  EXPECT_GT(plan.stages[0].layers.size(), 48);
  EXPECT_LT(plan.stages[0].layers.size(), 70);
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

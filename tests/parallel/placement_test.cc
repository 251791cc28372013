// Placement: the grammar of --place, the homes of spilled halves in the ledger, and what is
// refused.
#include "parallel/placement.h"

#include <gtest/gtest.h>

#include "kernels/core/error.h"
#include "kernels/core/packed_matrix.h"
#include "parallel/ledger.h"
#include "parallel/planner.h"
#include "parallel/shard.h"
#include "parallel/spill.h"
#include "tests/parallel/model_shapes.h"
#include "tests/parallel/refusal.h"

namespace spillway {
namespace {

using testing::expect_says;
using testing::llama_70b;
using testing::measured_cluster;
using testing::refusal;
using testing::smollm2;

TEST(ParsePlaces, HalvesOfLayers) {
  const auto pins = parse_places("layers 40-79 ffn = cpu; layer 3 attn=streamed;layers all=disk");
  ASSERT_EQ(pins.size(), 3u);
  EXPECT_EQ(pins[0], (PlacePin{{40, 80}, false, true, Place::kCpu}));
  EXPECT_EQ(pins[1], (PlacePin{{3, 4}, true, false, Place::kStreamed}));
  EXPECT_EQ(pins[2], (PlacePin{kAllLayers, true, true, Place::kDisk}));
}

TEST(ParsePlaces, HybridHasAShare) {
  const auto pins = parse_places("layers 0-1 feed-forward = hybrid 0.25; layer 2 ffn = hybrid");
  ASSERT_EQ(pins.size(), 2u);
  EXPECT_EQ(pins[0].cpu_share, 0.25);
  EXPECT_EQ(pins[1].cpu_share, 0.5);
}

TEST(ParsePlaces, RoundTrip) {
  for (const char* text : {"layers all = resident", "layers 40-79 ffn = cpu; layer 3 attn = disk",
                           "layers 0-9 ffn = hybrid 0.6", "layers 1,3,7-9 ffn = hybrid 0.6",
                           "layers all = disk; layers 1,2 = disk; layers all = disk",
                           "layers 1,2 = disk; layers 3,5 ffn = disk; layer 4 = disk"}) {
    EXPECT_EQ(places_text(parse_places(text)), text);
    EXPECT_EQ(parse_places(places_text(parse_places(text))), parse_places(text));
  }
}

TEST(ParsePlaces, AListOfRangesIsAPinEach) {
  const auto pins = parse_places("layers 1, 4-5 ,9 ffn = cpu");
  EXPECT_EQ(pins, parse_places("layer 1 ffn = cpu; layers 4-5 ffn = cpu; layer 9 ffn = cpu"));
  EXPECT_EQ(places_text(pins), "layers 1,4-5,9 ffn = cpu");
}

TEST(ParsePlaces, RefusesWithPlaceAndExample) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "\"layers\" expected, found the end"}, {"layer = cpu", "number of a layer"},
      {"layers 9-3 = cpu", "comes after"},        {"layers 1 mlp = cpu", "attn, ffn"},
      {"layers 1 = gpu", "resident, cpu"},        {"layers 1 = cpu, 2", "\";\" expected"},
      {"layers 1, = cpu", "number of a layer"},   {"layers all,1 = cpu", "\"=\" expected"},
      {"layers 1 = hybrid 1.5", "from 0 to 1"},   {"layers 99999999 = cpu", "number of a layer"}};
  for (const auto& [text, says] : cases) {
    try {
      parse_places(text);
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      expect_says(error.what(), {says, "character ", "layers 40-79 ffn = cpu"});
    }
  }
}

ClusterSpec gpu_cluster() {
  ClusterSpec cluster = measured_cluster(1);
  cluster.ranks[0].memory_free_bytes = int64_t{400} << 30;
  cluster.ranks[0].gpu.name = "Made Up 9000";
  cluster.ranks[0].gpu.total_bytes = int64_t{80} << 30;
  cluster.ranks[0].gpu.free_bytes = int64_t{79} << 30;
  cluster.ranks[0].gpu.read_gb_per_s = 3000;
  return cluster;
}

PlanRequest placed(const std::string& text) {
  PlanRequest request;
  request.device = DeviceChoice::kGpu;
  request.context = 512;
  request.places = parse_places(text);
  return request;
}

TEST(Places, EveryMatrixLiesInOneHome) {
  const ModelSpec model = llama_70b();
  const Plan all = make_plan(model, gpu_cluster(), placed("layers all = resident"));
  const Plan spilled = make_plan(
      model, gpu_cluster(),
      placed("layers 10-79 ffn = cpu; layers 20-29 ffn = hybrid 0.4; layers 30-39 = streamed"));
  EXPECT_TRUE(check_plan(spilled, model).empty());
  const auto bytes_in = [&](const Plan& plan, WeightHome home) {
    return weight_buffers(model, plan.parts[0], {0, 80}, true, true, home).total();
  };
  const LayerSpec& layer = model.layers[0];
  const auto half = [&](size_t i, Half which) {
    return half_bytes(model, layer, spilled.parts[0].layers[i], which);
  };
  const int64_t ffn = half(0, Half::kFeedForward);
  EXPECT_EQ(ffn, 2 * packed_bytes(QuantType::kQ4_K, 28672, 8192) +
                     packed_bytes(QuantType::kQ4_K, 8192, 28672));
  // Two pieces of `down` have their row groups aligned each.
  const int64_t hybrid = half(20, Half::kFeedForward);
  EXPECT_GE(hybrid, ffn);
  EXPECT_LE(hybrid, ffn + 8192 / kRowGroup * kPackedAlignment * 2);
  const int64_t resident =
      bytes_in(all, WeightHome::kDevice) - 70 * ffn - 10 * half(30, Half::kAttention);
  const int64_t off = 60 * ffn + 10 * hybrid + 10 * half(30, Half::kAttention);
  EXPECT_EQ(bytes_in(spilled, WeightHome::kDevice), resident);
  EXPECT_EQ(bytes_in(spilled, WeightHome::kHost), off);
  EXPECT_EQ(bytes_in(spilled, WeightHome::kDisk), 0);
  EXPECT_EQ(spilled.rank_bytes(0, "weights", "host"), off);
  EXPECT_EQ(spilled.rank_bytes(0, "weights", "gpu"), resident);
  EXPECT_EQ(spilled.rank_bytes(0, "activations", "gpu") - all.rank_bytes(0, "activations", "gpu"),
            kStreamSlots * Arena::rounded(hybrid));
  EXPECT_NE(plan_fingerprint(all), plan_fingerprint(spilled));
}

// A GPU's rank: the weights by line, three pinned slots of whole pages around the greatest half,
// and what the driver maps them with; two slots on the GPU as for halves from the host.
TEST(Places, HalvesOnDiskHaveSlotsOnHostAndGpu) {
  const ModelSpec model = llama_70b();
  const Plan all = make_plan(model, gpu_cluster(), placed("layers all = resident"));
  const Plan plan =
      make_plan(model, gpu_cluster(), placed("layers 10-69 ffn = disk; layer 3 = disk"));
  EXPECT_TRUE(check_plan(plan, model).empty());
  const LayerSpec& layer = model.layers[0];
  const int64_t ffn = half_bytes(model, layer, plan.parts[0].layers[3], Half::kFeedForward);
  const int64_t attention = half_bytes(model, layer, plan.parts[0].layers[3], Half::kAttention);
  EXPECT_EQ(plan.rank_bytes(0, "weights", "disk"), 61 * ffn + attention);
  EXPECT_EQ(plan.rank_bytes(0, "weights", "host"), 0);
  EXPECT_EQ(plan.rank_bytes(0, "weights", "gpu"),
            all.rank_bytes(0, "weights", "gpu") - 61 * ffn - attention);
  int64_t lines = 0;
  for (const LedgerLine& line : plan.ledger) {
    lines += line.place == "disk" && line.name == "weights" ? 1 : 0;
  }
  EXPECT_EQ(lines,
            62);  // "layer 3 attention", "layer 3 feed-forward", "layer 10 feed-forward", ...
  constexpr int64_t kPage = 4096;
  const int64_t slots = 3 * (ffn / kPage + 2) * kPage;
  const auto more = [&](const char* name, const char* place) {
    return plan.rank_bytes(0, name, place) - all.rank_bytes(0, name, place);
  };
  EXPECT_EQ(more("activations", "host"), slots);
  EXPECT_EQ(more("program", "gpu"), slots / 288);
  EXPECT_EQ(more("activations", "gpu"), 2 * ffn);
  // On a CPU the same slots, and no GPU to map them.
  PlanRequest on_cpu = placed("layer 3 = disk");
  on_cpu.device = DeviceChoice::kCpu;
  const Plan cpu = make_plan(model, gpu_cluster(), on_cpu);
  on_cpu.places.clear();
  EXPECT_EQ(cpu.rank_bytes(0, "activations", "host") -
                make_plan(model, gpu_cluster(), on_cpu).rank_bytes(0, "activations", "host"),
            slots);
  EXPECT_EQ(cpu.rank_bytes(0, "", "gpu"), 0);
}

TEST(Places, HybridColumnsAreCutOnBlocks) {
  const ModelSpec model = llama_70b();
  const Plan plan = make_plan(model, gpu_cluster(), placed("layers 5 ffn = hybrid 0.4"));
  const LayerPart& part = plan.parts[0].layers[5];
  EXPECT_EQ(part.feed_forward, Place::kHybrid);
  EXPECT_EQ(part.ff_on_cpu.begin, 0);
  EXPECT_EQ(part.ff_on_cpu.size() % ff_unit(model.layers[5]), 0);
  EXPECT_NEAR(static_cast<double>(part.ff_on_cpu.size()) / 28672.0, 0.4, 0.01);
  EXPECT_EQ(ff_off_cpu(part).end, 28672);
  EXPECT_EQ(plan.parts[0].layers[4].feed_forward, Place::kResident);
}

TEST(Places, AShareOfAllOrNothingIsNoHybrid) {
  const Plan plan = make_plan(llama_70b(), gpu_cluster(),
                              placed("layer 1 ffn = hybrid 0; layer 2 ffn = hybrid 1"));
  EXPECT_EQ(plan.parts[0].layers[1].feed_forward, Place::kStreamed);
  EXPECT_EQ(plan.parts[0].layers[2].feed_forward, Place::kCpu);
  EXPECT_EQ(plan.parts[0].layers[2].ff_on_cpu, plan.parts[0].layers[2].ff);
}

TEST(Places, Refused) {
  const auto refused = [](const std::string& text) {
    return refusal(smollm2(), gpu_cluster(), placed(text));
  };
  expect_says(refused("layers 20-30 = disk"), {"layer 30 is not there", "30 layers", "0-29"});
  expect_says(refused("layer 3 attn = cpu"), {"attention stays on the GPU", "layer 3 attn"});
  expect_says(refused("layer 3 = hybrid"), {"attention stays on the GPU", "streamed or disk"});
  PlanRequest on_cpu = placed("layer 0 ffn = streamed");
  on_cpu.device = DeviceChoice::kCpu;
  expect_says(refusal(smollm2(), gpu_cluster(), on_cpu),
              {"computes on its CPU", "resident or disk"});
  ModelSpec biased = smollm2();
  biased.layers[7].gate_bias = true;
  expect_says(refusal(biased, gpu_cluster(), placed("layers all ffn = cpu")),
              {"biases", "layer 7 ffn", "streamed or disk"});
}

}  // namespace
}  // namespace spillway

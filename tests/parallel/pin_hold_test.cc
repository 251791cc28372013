// What a plan says of pins that keep weights somewhere, and of flags that are less than a plan
// needs: what binds is named, and what would fit.
#include "parallel/pin_hold.h"

#include <gtest/gtest.h>

#include "parallel/explain.h"
#include "parallel/pins.h"
#include "parallel/spill.h"
#include "tests/parallel/made_up_gpus.h"
#include "tests/parallel/refusal.h"

namespace spillway {
namespace {

using testing::expect_says;
using testing::gpus;
using testing::kGiB;
using testing::llama_70b;
using testing::llama_8b;
using testing::measured_cluster;
using testing::refusal;
using testing::smollm2;
using testing::with_host_rates;

std::string explained(const ModelSpec& model, const ClusterSpec& cluster,
                      const PlanRequest& request) {
  const Planned planned = plan_and_others(model, cluster, request);
  std::string text = explanation_text(explain(planned, model, cluster, request), planned.plan);
  // As one line.
  for (size_t at = 0; (at = text.find("\n    ", at)) != std::string::npos;)
    text.replace(at, 5, " ");
  return text;
}

PlanRequest placed(const std::string& places) {
  PlanRequest request;
  request.device = DeviceChoice::kGpu;
  request.choose_cpu_rows = true;
  request.places = parse_places(places);
  return request;
}

TEST(PinHold, CountsWhatPinsKeepOffDevicesAndOnThem) {
  const ModelSpec model = llama_8b();
  const ClusterSpec cluster = with_host_rates(gpus({80}));
  PlanRequest request = placed("layers 0-9 ffn = cpu; layers 20-21 = resident");
  const Plan plan = make_plan(model, cluster, request);
  const LayerPart& part = plan.parts[0].layers[0];
  const int64_t ffn = half_bytes(model, model.layers[0], part, Half::kFeedForward);
  const int64_t attn = half_bytes(model, model.layers[0], part, Half::kAttention);
  PinHold hold = pin_hold(plan, model, request);
  EXPECT_EQ(hold.flags, "--place 'layers 0-9 ffn = cpu; layers 20-21 = resident'");
  EXPECT_EQ(hold.off_bytes, 10 * ffn);
  EXPECT_EQ(hold.kept_bytes, 2 * (ffn + attn));
  EXPECT_TRUE(hold.all_spilled);
  // The same plan for somebody who pinned less of it.
  request.places = parse_places("layers 0-4 ffn = cpu");
  hold = pin_hold(plan, model, request);
  EXPECT_EQ(hold.off_bytes, 5 * ffn);
  EXPECT_EQ(hold.kept_bytes, 0);
  EXPECT_FALSE(hold.all_spilled);
  hold = pin_hold(plan, model, {});
  EXPECT_EQ(hold.flags, "");
  EXPECT_EQ(hold.off_bytes, 0);
}

TEST(PinHold, APinIsWhatBindsWhereMemoryIsLeft) {
  const ClusterSpec cluster = with_host_rates(gpus({80}));
  const std::string text = explained(llama_8b(), cluster, placed("layers 0-9 ffn = cpu"));
  expect_says(text, {"bound by --place 'layers 0-9 ffn = cpu', which keeps ",
                     " of weights off the GPUs; fullest is rank 0's GPU: ",
                     "without --place 'layers 0-9 ffn = cpu': decode "});
  EXPECT_EQ(text.find("bound by rank"), std::string::npos) << text;
  // A pin that the plan would have chosen too costs nothing.
  const std::string free = explained(llama_8b(), cluster, placed("layers all = resident"));
  expect_says(free, {"not bound by memory"});
  EXPECT_EQ(free.find("without"), std::string::npos) << free;
}

TEST(PinHold, GpuLayersSayWhatTheyDoWithTheOthers) {
  const ClusterSpec cluster = with_host_rates(gpus({80}));
  PlanRequest request;
  request.gpu_layers = 20;
  request.choose_cpu_rows = true;
  expect_says(explained(llama_8b(), cluster, request),
              {"bound by -ngl 20, which keeps ", "-ngl 20: of layers 0-11 the CPU multiplies",
               "attention stays on the GPU", "without -ngl 20: decode "});
  request.gpu_layers = 31;
  expect_says(explained(llama_8b(), cluster, request), {"-ngl 31: of layer 0 the CPU"});
  request.gpu_layers = 0;
  expect_says(
      explained(llama_8b(), cluster, request),
      {"not bound by memory", "-ngl 0: all layers are the CPU's", "without -ngl 0: decode "});
  request.gpu_layers = 32;
  EXPECT_EQ(explained(llama_8b(), cluster, request).find("-ngl"), std::string::npos);
}

TEST(PinHold, AFullMemoryIsNamedWithThePinThatFillsIt) {
  const ClusterSpec cluster = with_host_rates(gpus({24}));
  PlanRequest request = placed("layers 0-19 = resident; layer 79 ffn = streamed");
  request.gpu_memory = parse_budgets("--gpu-memory", "20GiB");
  expect_says(explained(llama_70b(), cluster, request),
              {"bound by rank 0's GPU: ", " of 20.00 GiB (--gpu-memory), most of it",
               "; --place 'layers 0-19 = resident; layer", " keeps ",
               " of weights on the GPUs and ", " off them"});
}

TEST(PinHold, HalvesThatAPinPutOnTheDiskOfACpu) {
  const ClusterSpec cluster = measured_cluster(1);
  PlanRequest request;
  request.places = parse_places("layers 0-9 = disk");
  expect_says(explained(smollm2(), cluster, request),
              {"bound by --place 'layers 0-9 = disk', which keeps ", " of weights on the disk"});
}

TEST(PinHold, AGpuThatIsNotUsedIsNoFullHost) {
  ClusterSpec cluster = with_host_rates(gpus({80}));
  PlanRequest request;
  request.gpu_memory = parse_budgets("--gpu-memory", "1GiB");
  expect_says(explained(llama_8b(), cluster, request),
              {"bound by rank 0's GPU, not used: 1.00 GiB (--gpu-memory) do not hold the stage",
               "one more GiB on every GPU: "});
}

// 46 GB/s of threads beside a bus that copies all the time, 92 beside one that is idle.
TEST(BesideTheBus, ACopyNowAndThenSlowsTheCpuNowAndThen) {
  ClusterSpec cluster = with_host_rates(gpus({80}), 92, 52);
  cluster.ranks[0].host_reads = {{16, 92, 46, 52}};
  PlanRequest request = placed("layers 0-15 ffn = cpu");
  request.context = 512;
  const auto cpu_ms = [&](const std::string& places) {
    request.places = parse_places("layers 0-15 ffn = cpu" + places);
    return make_plan(llama_8b(), cluster, request).prediction.cpu_ms;
  };
  const double alone = cpu_ms("");
  const double some = cpu_ms("; layers 16-19 attn = streamed");
  const double all = cpu_ms("; layers 16-31 ffn = streamed");
  // Attention has 42 M weights a layer, the feed-forward part 176 M: 4 * 42 / 52 of 16 * 176 / 46
  // seconds pass beside a copy, in which half as much is read.
  const double part = (4 * 42.0 / 52) / (16 * 176.0 / 46);
  EXPECT_NEAR(some / alone, 1 / (1 - part / 2), 0.03);
  // There the copies take the longer time: the CPU's halves hide behind them, at half their rate.
  EXPECT_LT(all, 2 * alone);
  EXPECT_GT(some, alone);
  EXPECT_LT(some, 1.1 * alone);
}

TEST(Shorter, FlagsThatFitAreFound) {
  const ModelSpec model = smollm2();
  ClusterSpec cluster = measured_cluster(1);
  PlanRequest request;
  request.places = parse_places("layers all = resident");
  request.context = 512;
  request.limits.max_rows = 32;
  const int64_t least = make_plan(model, cluster, request).rank_bytes(0);
  cluster.ranks[0].memory_free_bytes = testing::free_for(least);
  request.context = 0;
  request.limits.max_rows = 512;
  const std::string said = refusal(model, cluster, request);
  expect_says(said,
              {"(-c 512 --ubatch-size 32 fits; or free memory on this host, start more ranks"});
  EXPECT_EQ(said.find("no context fits"), std::string::npos) << said;
  // With a bit less a shorter context does; with nearly nothing none.
  request.limits.max_rows = 32;
  cluster.ranks[0].memory_free_bytes = testing::free_for(least - 1);
  expect_says(refusal(model, cluster, request), {"-c "});
  cluster.ranks[0].memory_free_bytes = 1 << 20;
  expect_says(refusal(model, cluster, request), {"no context fits: free memory"});
  // What is let go is named.
  request.host_memory = parse_budgets("--host-memory", "1MiB");
  cluster.ranks[0].memory_free_bytes = 100 * kGiB;
  request.context = 300;
  expect_says(refusal(model, cluster, request),
              {"give it more with --host-memory", "possible: -c 300", ", without --place and "});
}

TEST(Shorter, OfGpuLayersAsManyAsFit) {
  const ModelSpec model = llama_70b();
  const ClusterSpec cluster = with_host_rates(gpus({24}));
  PlanRequest request;
  request.choose_gpu_rows = true;
  request.gpu_rows = 2048;
  request.gpu_layers = 99;  // not on the CPU instead
  const std::string said = refusal(model, cluster, request);
  expect_says(said, {"of GPU memory", "the nearest that is possible: -ngl "});
  request.gpu_layers = std::stoll(said.substr(said.find("possible: -ngl ") + 15));
  EXPECT_GT(request.gpu_layers, 10);
  EXPECT_TRUE(make_plan(model, cluster, request).parts[0].gpu);
  ++request.gpu_layers;
  expect_says(refusal(model, cluster, request), {"of GPU memory"});
}

}  // namespace
}  // namespace spillway

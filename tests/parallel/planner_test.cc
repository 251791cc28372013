// The planner: every split is sound, requests that contradict themselves are refused with a way
// out, memory is respected, shares and layers follow speed.
#include "parallel/planner.h"

#include <gtest/gtest.h>

#include <numeric>

#include "kernels/core/error.h"
#include "parallel/placement.h"
#include "tests/parallel/model_shapes.h"

namespace spillway {
namespace {

using testing::measured_cluster;
using testing::smollm2;
using testing::tiny_stories;

PlanRequest with_split(const std::string& text) {
  PlanRequest request;
  request.split = parse_split(text);
  return request;
}

PlanRequest with_degrees(int tp, int pp) {
  PlanRequest request;
  request.tp = tp;
  request.pp = pp;
  return request;
}

std::string first_fault(const Plan& plan, const ModelSpec& model) {
  const auto faults = check_plan(plan, model);
  return faults.empty() ? "" : faults[0];
}

// The error of a request that must be refused.
Error refusal(const ModelSpec& model, const ClusterSpec& cluster, const PlanRequest& request) {
  try {
    make_plan(model, cluster, request);
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "the request was planned";
  return Error("none");
}

void expect_says(const Error& error, const std::string& part) {
  EXPECT_NE(std::string(error.what()).find(part), std::string::npos)
      << "\"" << part << "\" in: " << error.what();
}

TEST(AllSplits, CompositionsInOrder) {
  std::vector<std::string> texts;
  for (const auto& split : all_splits(smollm2(), 3, false)) texts.push_back(split_text(split));
  EXPECT_EQ(texts, (std::vector<std::string>{"1:1:1", "1:1+1", "1+1:1", "1+1+1"}));
}

TEST(AllSplits, UnevenOnesFollowTheirEvenOnes) {
  std::vector<std::string> texts;
  for (const auto& split : all_splits(smollm2(), 3, true)) texts.push_back(split_text(split));
  EXPECT_EQ(texts, (std::vector<std::string>{"1:1:1", "2:1:1", "1:1+1", "2:1+1", "1+1:1", "1+2:1",
                                             "1+1+1"}));
}

TEST(AllSplits, NoMoreStagesThanLayers) {
  for (const auto& split : all_splits(tiny_stories(), 5, true)) EXPECT_LE(split.size(), 2u);
  EXPECT_EQ(all_splits(tiny_stories(), 5, false).size(), 5u);  // 5, 4+1, 3+2, 2+3, 1+4
  EXPECT_EQ(all_splits(smollm2(), 5, false).size(), 16u);
  EXPECT_EQ(all_splits(smollm2(), 1, true).size(), 1u);
}

TEST(MakePlan, QuantisedCachesWantWholeBlocks) {
  const ModelSpec model = smollm2();
  PlanRequest request;
  const int64_t half = make_plan(model, assumed_cluster(1), request).rank_bytes(0, "kv");
  request.kv_type = KvType::kQ8_0;
  // 34 and 18 bytes for 32 values, where halves have 64.
  EXPECT_EQ(make_plan(model, assumed_cluster(1), request).rank_bytes(0, "kv") * 64, half * 34);
  request.kv_type = KvType::kQ4_0;
  EXPECT_EQ(make_plan(model, assumed_cluster(1), request).rank_bytes(0, "kv") * 64, half * 18);
  const ModelSpec narrow = testing::model_of({"narrow", 2, 96, 2, 2, 48, 192, 512, 512});
  const Error error = refusal(narrow, assumed_cluster(1), request);
  expect_says(error, "q4_0 holds blocks of 32 values, but the model's heads have 48");
  expect_says(error, "--kv-type f16");
}

TEST(MakePlan, EverySplitIsSound) {
  for (const ModelSpec& model : {smollm2(), tiny_stories()}) {
    for (int n = 1; n <= 5; ++n) {
      for (const auto& split : all_splits(model, n, true)) {
        PlanRequest request;
        request.split = split;
        request.context = 256;
        const Plan plan = make_plan(model, assumed_cluster(n), request);
        EXPECT_EQ(plan.n_ranks(), n);
        EXPECT_EQ(plan.stages.size(), split.size());
        EXPECT_EQ(first_fault(plan, model), "") << model.name << " " << split_text(split);
        for (int r = 0; r < n; ++r) EXPECT_GT(plan.rank_bytes(r, "activations"), 0);
      }
    }
  }
}

TEST(MakePlan, FreeChoiceIsSoundForAnyNumberOfRanks) {
  for (int n = 1; n <= 12; ++n) {
    const Plan plan = make_plan(smollm2(), measured_cluster(n), PlanRequest{});
    EXPECT_EQ(first_fault(plan, smollm2()), "");
    EXPECT_EQ(plan.n_ranks(), n);
  }
}

TEST(MakePlan, TensorParallelWhenTheLinkIsFastStagesWhenItIsSlow) {
  ClusterSpec cluster = measured_cluster(2);
  cluster.link = {1.0, 10.0, true};
  EXPECT_EQ(make_plan(smollm2(), cluster, {}).stages.size(), 1u);
  cluster.link = {5000.0, 0.01, true};
  EXPECT_EQ(make_plan(smollm2(), cluster, {}).stages.size(), 2u);
}

TEST(MakePlan, TiesPreferTensorParallel) {
  // A rate so low that messages vanish beside it, and two equal layers' worth of work.
  ClusterSpec cluster = measured_cluster(2, 1e-3);
  for (RankSpec& rank : cluster.ranks) rank.matrix_gop_per_s = 1e9;
  const Plan plan = make_plan(smollm2(), cluster, {});
  EXPECT_EQ(plan_title(plan), "TP2");
}

TEST(MakePlan, OneDegreeGivenTheOtherFollows) {
  const ClusterSpec cluster = assumed_cluster(4);
  EXPECT_EQ(plan_title(make_plan(smollm2(), cluster, with_degrees(2, 0))),
            "TP2 x PP2, layers 15+15");
  EXPECT_EQ(plan_title(make_plan(smollm2(), cluster, with_degrees(0, 4))),
            "TP1 x PP4, layers 8+8+7+7");
  EXPECT_EQ(plan_title(make_plan(smollm2(), cluster, with_degrees(4, 1))), "TP4");
  EXPECT_EQ(plan_title(make_plan(smollm2(), cluster, with_degrees(1, 0))),
            "TP1 x PP4, layers 8+8+7+7");
}

TEST(MakePlan, DegreesThatDoNotFitAreRefusedWithAWayOut) {
  const Error tp = refusal(smollm2(), assumed_cluster(3), with_degrees(2, 0));
  expect_says(tp, "--tp 2 does not divide 3 ranks");
  expect_says(tp, "--split 1:1+1");
  const Error pp = refusal(smollm2(), assumed_cluster(5), with_degrees(0, 2));
  expect_says(pp, "--pp 2 does not divide 5 ranks");
  const Error both = refusal(smollm2(), assumed_cluster(3), with_degrees(2, 2));
  expect_says(both, "needs 4 ranks");
  expect_says(both, "mpirun -np 4");
  expect_says(refusal(smollm2(), assumed_cluster(1), with_degrees(2, 0)), "1 rank");
  expect_says(refusal(smollm2(), assumed_cluster(2), with_degrees(-1, 0)), "--tp -1");
  expect_says(refusal(smollm2(), assumed_cluster(2), with_degrees(0, -2)), "--pp -2");
  expect_says(refusal(smollm2(), assumed_cluster(2), with_degrees(1 << 30, 1 << 30)), "ranks");
}

TEST(MakePlan, MoreStagesThanLayersIsRefused) {
  const ModelSpec model = tiny_stories();
  expect_says(refusal(model, assumed_cluster(3), with_degrees(0, 3)), "the model has 2 layers");
  expect_says(refusal(model, assumed_cluster(3), with_degrees(1, 0)), "the model has 2 layers");
  expect_says(refusal(model, assumed_cluster(3), with_split("1+1+1")), "the model has 2 layers");
}

TEST(MakePlan, SplitsThatContradictAreRefused) {
  const ModelSpec model = smollm2();
  const ClusterSpec three = assumed_cluster(3);
  expect_says(refusal(model, three, with_split("1:1")), "needs 2 ranks, the job has 3");
  expect_says(refusal(model, three, with_split("1:1:1:1")), "mpirun -np 4");
  expect_says(refusal(model, three, with_split("20@1:1+5@1")), "add up to 25, the model has 30");
  expect_says(refusal(model, three, with_split("30@1:1+1")), "1 stage wants one at least");
  expect_says(refusal(model, three, with_split("31@1:1+1")), "the model has 30");
  PlanRequest request = with_split("1:1+1");
  request.tp = 2;
  expect_says(refusal(model, three, request), "--tp 2 contradicts stage 1 of 1 rank");
  request.tp = 0;
  request.pp = 3;
  expect_says(refusal(model, three, request), "--pp 3 contradicts a split into 2 stages");
  request.pp = 2;
  EXPECT_EQ(make_plan(model, three, request).stages.size(), 2u);
  request.split[0].shares = {1, -1};
  expect_says(refusal(model, three, request), "not above 0");
  request.split[0].shares.clear();
  expect_says(refusal(model, three, request), "has no ranks");
}

TEST(MakePlan, PinnedLayersAndSharesAreKept) {
  const Plan plan = make_plan(smollm2(), assumed_cluster(3), with_split("22@2:1+1"));
  EXPECT_EQ(plan.stages[0].layers, (Range{0, 22}));
  EXPECT_EQ(plan.stages[1].layers, (Range{22, 30}));
  EXPECT_NEAR(plan.stages[0].shares[0], 2.0 / 3, 1e-12);
  EXPECT_NEAR(plan.stages[0].achieved[0], 2.0 / 3, 0.02);
  EXPECT_EQ(plan_title(plan), "TP2 (2:1) + TP1, layers 22+8");
}

TEST(MakePlan, LayersFollowTheSharesOfTheStages) {
  const Plan plan = make_plan(smollm2(), assumed_cluster(3), with_split("1:1+1"));
  EXPECT_EQ(plan.stages[0].layers.size(), 20);
  const Plan skewed = make_plan(smollm2(), assumed_cluster(2), with_split("1000+1"));
  EXPECT_EQ(skewed.stages[1].layers.size(), 1);  // never none
}

TEST(MakePlan, SharesFollowMeasuredSpeedOnlyWhenItDiffers) {
  ClusterSpec cluster = measured_cluster(2, 10.0);
  cluster.ranks[1].read_gb_per_s = 11.0;
  Plan plan = make_plan(smollm2(), cluster, with_degrees(2, 1));
  EXPECT_DOUBLE_EQ(plan.stages[0].shares[0], 0.5);
  cluster.ranks[1].read_gb_per_s = 30.0;
  plan = make_plan(smollm2(), cluster, with_degrees(2, 1));
  EXPECT_DOUBLE_EQ(plan.stages[0].shares[0], 0.25);
  EXPECT_NEAR(plan.stages[0].achieved[0], 0.25, 0.02);
  plan = make_plan(smollm2(), cluster, with_degrees(1, 2));
  // One sequence decodes on one stage at a time: the slow one has as little as can be.
  EXPECT_EQ(plan.stages[1].layers.size(), 29);
  cluster.ranks[1].measured = false;  // half a measurement is none
  plan = make_plan(smollm2(), cluster, with_degrees(2, 1));
  EXPECT_DOUBLE_EQ(plan.stages[0].shares[0], 0.5);
}

TEST(MakePlan, VocabularyIsCutOnRowGroups) {
  const ModelSpec model = tiny_stories();
  const Plan plan = make_plan(model, assumed_cluster(3), with_degrees(3, 1));
  int64_t at = 0;
  for (const RankPart& part : plan.parts) {
    EXPECT_EQ(part.embedding_rows.begin, at);
    EXPECT_EQ(part.embedding_rows.begin % 16, 0);
    EXPECT_EQ(part.embedding_rows, part.output_rows);
    at = part.embedding_rows.end;
  }
  EXPECT_EQ(at, model.vocab_size);
}

TEST(MakePlan, ContextAndPages) {
  PlanRequest request;
  EXPECT_EQ(make_plan(smollm2(), assumed_cluster(1), request).kv.context, 4096);
  EXPECT_EQ(make_plan(tiny_stories(), assumed_cluster(1), request).kv.context, 512);
  request.context = 100;
  const Plan plan = make_plan(smollm2(), assumed_cluster(1), request);
  EXPECT_EQ(plan.kv.n_pages, 4 + request.limits.max_sequences);
  ModelSpec silent = smollm2();
  silent.context_length = 0;
  request.context = 100000;
  EXPECT_EQ(make_plan(silent, assumed_cluster(1), request).kv.context, 100000);
}

TEST(MakePlan, ContextBeyondTheTrainingNeedsRopeScaling) {
  PlanRequest request;
  request.context = 1000;
  ModelSpec model = tiny_stories();
  const Error plain = refusal(model, assumed_cluster(1), request);
  expect_says(plain, "trained with 512");
  expect_says(plain, "-c 512");
  model.rope.scaling = RopeScaling::kYarn;
  model.rope.factor = 4;
  EXPECT_EQ(make_plan(model, assumed_cluster(1), request).kv.context, 1000);
  request.context = 2049;
  expect_says(refusal(model, assumed_cluster(1), request), "rope scaling reaches 2048");
  model.rope.original_context = 600;
  EXPECT_EQ(make_plan(model, assumed_cluster(1), request).kv.context, 2049);
  request.context = -5;
  expect_says(refusal(model, assumed_cluster(1), request), "-5 tokens");
}

TEST(MakePlan, LimitsMustBePositive) {
  PlanRequest request;
  request.limits.max_rows = 0;
  expect_says(refusal(smollm2(), assumed_cluster(1), request), "tokens a step is 0");
}

TEST(MakePlan, TooLittleMemoryNamesRankHostBytesAndTheContextThatFits) {
  ClusterSpec cluster = measured_cluster(2);
  PlanRequest request = with_degrees(2, 1);
  request.places = parse_places("layers all = resident");  // else the disk has what is too much
  request.context = 8192;
  const Plan plan = make_plan(smollm2(), cluster, request);
  const int64_t need = plan.rank_bytes(1);
  cluster.ranks[1].memory_free_bytes = testing::free_for(need);
  EXPECT_NO_THROW(make_plan(smollm2(), cluster, request));
  cluster.ranks[1].memory_free_bytes = testing::free_for(need) - 1;
  const Error error = refusal(smollm2(), cluster, request);
  expect_says(error, "rank 1 needs");
  expect_says(error, "host host1");
  expect_says(error, "kv ");
  const size_t at = error.todo().find("(-c ");
  ASSERT_NE(at, std::string::npos) << error.what();
  const int64_t context = std::stoll(error.todo().substr(at + 4));
  EXPECT_LT(context, 8192);
  request.context = context;
  EXPECT_NO_THROW(make_plan(smollm2(), cluster, request));  // what it says is true
  request.context = context + plan.kv.page_tokens;
  EXPECT_THROW(make_plan(smollm2(), cluster, request), Error);
}

TEST(MakePlan, NoContextFits) {
  ClusterSpec cluster = measured_cluster(1);
  cluster.ranks[0].memory_free_bytes = 1 << 20;
  expect_says(refusal(smollm2(), cluster, {}), "no context fits");
}

TEST(MakePlan, FreeChoiceTakesASplitThatFits) {
  ClusterSpec cluster = measured_cluster(2);
  cluster.link = {5000.0, 0.01, true};  // stages would be faster ...
  const Plan stages = make_plan(smollm2(), cluster, {});
  ASSERT_EQ(stages.stages.size(), 2u);
  const Plan tp = make_plan(smollm2(), cluster, with_degrees(2, 1));
  ASSERT_LT(tp.rank_bytes(1), stages.rank_bytes(1));
  cluster.ranks[1].memory_free_bytes = stages.rank_bytes(1) - 1;  // ... but the last does not fit
  EXPECT_EQ(make_plan(smollm2(), cluster, {}).stages.size(), 1u);
}

TEST(MakePlan, MoreRanksThanAreSearchedForAreRefusedAtOnce) {
  const Error error = refusal(smollm2(), assumed_cluster(4096), {});
  expect_says(error, "4096 ranks are more than the 1024");
  expect_says(error, "--tp or --pp");
  expect_says(error, "ranks can hold a part");
}

TEST(MakePlan, BrokenModelsAreRefused) {
  const ClusterSpec cluster = assumed_cluster(2);
  ModelSpec model = smollm2();
  model.layers[3].o.type = QuantType::kIQ1_S;
  expect_says(refusal(model, cluster, {}), "IQ1_S");
  expect_says(refusal(model, cluster, {}), "attention.o of layer 3");
  model = smollm2();
  model.layers[7].up.rows = 1535;
  expect_says(refusal(model, cluster, {}), "feed-forward.up of layer 7");
  model = smollm2();
  model.n_kv_heads = 2;
  expect_says(refusal(model, cluster, {}), "9 heads");
  model = smollm2();
  model.vocab_size = 0;
  expect_says(refusal(model, cluster, {}), "size of 0");
  model = tiny_stories();
  model.output.cols = 64;
  expect_says(refusal(model, cluster, {}), "output");
}

TEST(MakePlan, SamePlanEveryTime) {
  const ClusterSpec cluster = measured_cluster(5);
  const Plan a = make_plan(smollm2(), cluster, {});
  const Plan b = make_plan(smollm2(), cluster, {});
  EXPECT_EQ(plan_fingerprint(a), plan_fingerprint(b));
}

}  // namespace
}  // namespace spillway

// --check-hidden: which points are hashed, who is named, and a flipped bit in a real job.
#include "runtime/stage/hidden_check.h"

#include <gtest/gtest.h>

#include <bit>

#include "tests/support/flipped_bit.h"
#include "tests/support/tiny_job.h"

namespace spillway::testing {
namespace {

TEST(HiddenHashes, PointsAreTakenOnceAndInOrder) {
  HiddenHashes all(HiddenCheck::kSums, 2, 3);
  EXPECT_EQ(all.all().size(), 3 * all.values().size());
  EXPECT_EQ(all.last_point(), 4);
  all.begin();
  EXPECT_TRUE(all.take(0));
  EXPECT_FALSE(all.take(0));  // the sum of the half before still waits
  EXPECT_TRUE(all.take(2));
  EXPECT_FALSE(all.take(1));
  EXPECT_TRUE(all.take(4));
  all.values()[4] = 7;
  all.begin();
  EXPECT_EQ(all.values()[4], 0U);
  EXPECT_TRUE(all.take(0));
}

TEST(HiddenHashes, AStageHasItsLastPointAlone) {
  HiddenHashes stage(HiddenCheck::kStage, 3, 2);
  for (int64_t point = 0; point < 6; ++point) EXPECT_FALSE(stage.take(point)) << point;
  EXPECT_TRUE(stage.take(6));
  HiddenHashes off;
  EXPECT_FALSE(off.on());
  EXPECT_FALSE(off.take(0));
  off.begin();
}

// Ranks 4 to 6 hold layers 10 and 11.
StagePlan stage_of(std::vector<int> ranks) { return {{10, 12}, std::move(ranks), {}, {}}; }

std::string difference(const StagePlan& stage, HiddenCheck where, std::vector<uint64_t> all) {
  const std::optional<Error> error = hidden_difference(stage, where, 9, all);
  return error ? error->what() : "";
}

TEST(HiddenDifference, NamesTheOddRankAndTheFirstPoint) {
  const StagePlan three = stage_of({4, 5, 6});
  const std::vector<uint64_t> equal = {1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1, 2, 3, 4, 5};
  EXPECT_EQ(difference(three, HiddenCheck::kSums, equal), "");
  std::vector<uint64_t> all = equal;
  all[3] = all[4] = 99;  // of the first rank: the majority is right
  EXPECT_NE(difference(three, HiddenCheck::kSums, all)
                .find("step 9, after the attention of layer 11: rank 4 holds another residual "
                      "stream than ranks 5 and 6 ("),
            std::string::npos)
      << difference(three, HiddenCheck::kSums, all);
  all = equal;
  all[12] = 99;
  EXPECT_NE(difference(three, HiddenCheck::kSums, all)
                .find("step 9, after the feed-forward part of layer 10: rank 6 holds another "
                      "residual stream than ranks 4 and 5 ("),
            std::string::npos);
  all = equal;
  all[5] = 98;
  all[10] = 99;  // all three differ: the first one counts
  EXPECT_NE(
      difference(three, HiddenCheck::kSums, all)
          .find(
              "step 9, before layer 10: ranks 5 and 6 hold another residual stream than rank 4 ("),
      std::string::npos);
}

TEST(HiddenDifference, OfTwoRanksAndOfAStage) {
  const StagePlan two = stage_of({0, 1});
  EXPECT_NE(
      difference(two, HiddenCheck::kStage, {0, 0, 0, 0, 5, 0, 0, 0, 0, 6})
          .find(
              "step 9, after layers 10 to 11: rank 1 holds another residual stream than rank 0 ("),
      std::string::npos);
}

// --- a job of threads ---

TinyOptions small_model() {
  TinyOptions options;
  options.n_layers = 3;
  options.heads = 6;
  options.kv_heads = 3;
  options.vocab = 75;
  return options;
}

// Sums of a TP group: the embedding's is 0, attention of layer i 2i + 1, its feed-forward part
// 2i + 2.
constexpr int64_t kAttentionOfLayer1 = 3;

// What the job says when, on `rank`, a bit flips in the sum number `sum` of step `step`.
std::string said(const std::string& split, HiddenCheck check, int rank, int64_t sum, int step) {
  const TinyJob job(small_model());
  const Plan plan = job.plan(tiny_request(parse_split(split)));
  const std::vector<int32_t> tokens = tiny_tokens(6, 75);
  const auto body = [&](std::unique_ptr<Communicator> world) {
    ThreadPool pool(1);
    const cpu::Exec exec{&pool, cpu::best_isa()};
    Mesh mesh = build_mesh(plan, std::move(world));
    const StagePlan& stage = plan.stages[static_cast<size_t>(mesh.stage)];
    const int64_t sums = 2 * stage.layers.size() + (mesh.stage == 0 ? 1 : 0);
    if (mesh.rank == rank) {
      mesh.tp = std::make_unique<FlippedBit>(std::move(mesh.tp), step * sums + sum);
    }
    Pipeline pipeline(job.gguf, job.spec, plan, mesh, exec, 0, "", {});
    pipeline.connect(CommChoice::kAuto, check);
    StepBatch batch(plan.limits, plan.kv.n_pages);
    StepResult result(plan.limits, static_cast<int64_t>(plan.stages.back().ranks.size()));
    for (int64_t i = 0; i < 3; ++i) {
      batch.clear();
      batch.number = i;
      TinyJob::append(batch, plan, {tokens.begin() + 2 * i, tokens.begin() + 2 * i + 2}, 2 * i, 0,
                      0);
      pipeline.forward(batch, mesh.front() ? &result : nullptr);
    }
    pipeline.finish();
  };
  try {
    run_ranks(plan.n_ranks(), body);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(HiddenCheckTest, AFlippedBitIsNamed) {
  EXPECT_EQ(said("1:1", HiddenCheck::kSums, -1, 0, 0), "") << "nothing is flipped";
  const std::string two = said("1:1", HiddenCheck::kSums, 1, kAttentionOfLayer1, 2);
  EXPECT_NE(two.find("step 2, after the attention of layer 1: rank 1 holds another residual stream "
                     "than rank 0 ("),
            std::string::npos)
      << two;
  const std::string three = said("1:1:1", HiddenCheck::kSums, 0, 6, 1);
  EXPECT_NE(three.find("step 1, after the feed-forward part of layer 2: rank 0 holds another "
                       "residual stream than ranks 1 and 2 ("),
            std::string::npos)
      << three;
  const std::string embedding = said("2:1:1", HiddenCheck::kSums, 2, 0, 0);
  EXPECT_NE(embedding.find("rank 2 holds"), std::string::npos) << embedding;
  EXPECT_NE(embedding.find("before layer 0"), std::string::npos) << embedding;
}

TEST(HiddenCheckTest, InTheSecondStage) {
  // Ranks 1 and 2 have layers 1 and 2; their first sum is the attention of layer 1.
  const std::string text = said("1@1+2@1:1", HiddenCheck::kSums, 2, 0, 1);
  EXPECT_NE(text.find("step 1, after the attention of layer 1: rank 2 holds another residual "
                      "stream than rank 1 ("),
            std::string::npos)
      << text;
}

TEST(HiddenCheckTest, OnceAStage) {
  const std::string text = said("1:1", HiddenCheck::kStage, 1, kAttentionOfLayer1, 1);
  EXPECT_NE(
      text.find("step 1, after layers 0 to 2: rank 1 holds another residual stream than rank 0 ("),
      std::string::npos)
      << text;
  EXPECT_EQ(said("1:1", HiddenCheck::kOff, 1, kAttentionOfLayer1, 1), "");
}

}  // namespace
}  // namespace spillway::testing

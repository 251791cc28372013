// What a split, a chunk or a neighbour in the step may never change: the bits of the logits.
#include <gtest/gtest.h>

#include "tests/support/tiny_job.h"

namespace spillway::testing {
namespace {

using Logits = std::vector<std::vector<float>>;

void expect_all_splits_equal(const TinyOptions& options, KvType kv_type, int most_ranks) {
  const TinyJob job(options);
  const std::vector<int32_t> tokens = tiny_tokens(37, options.vocab);
  PlanRequest request = tiny_request();
  request.kv_type = kv_type;
  const Logits expected = job.logits(job.plan(request), tokens);
  ASSERT_EQ(expected.size(), tokens.size());
  int n_splits = 0;
  for (int n = 1; n <= most_ranks; ++n) {
    for (const std::vector<StagePin>& split : all_splits(job.spec, n, true)) {
      SCOPED_TRACE("--split " + split_text(split));
      request.split = split;
      const Plan plan = job.plan(request);
      ASSERT_EQ(check_plan(plan, job.spec), std::vector<std::string>());
      EXPECT_EQ(job.logits(plan, tokens, 16), expected);
      ++n_splits;
    }
  }
  EXPECT_GE(n_splits, most_ranks * 3);
}

TEST(SplitsTest, FloatWeights) {
  TinyOptions options;
  options.n_layers = 4;
  options.heads = 6;
  options.kv_heads = 3;
  options.ff = 160;
  options.vocab = 75;
  options.biases = true;
  expect_all_splits_equal(options, KvType::kF32, 4);
}

TEST(SplitsTest, NineHeadsOnThreeKvHeads) {
  TinyOptions options;  // as SmolLM2: more ranks than KV heads, tied output
  options.n_layers = 4;
  options.heads = 9;
  options.kv_heads = 3;
  options.head_dim = 32;
  options.ff = 192;
  options.tied = true;
  options.type = QuantType::kQ8_0;
  expect_all_splits_equal(options, KvType::kF16, 4);
}

TEST(SplitsTest, FourBitWeightsOfPairedHalves) {
  TinyOptions options;
  options.architecture = "qwen2";
  options.n_layers = 3;
  options.heads = 8;
  options.kv_heads = 1;
  options.biases = true;
  options.type = QuantType::kQ4_1;
  expect_all_splits_equal(options, KvType::kF16, 3);
}

TinyOptions windowed_gemma() {
  TinyOptions options;
  options.architecture = "gemma3";
  options.n_layers = 4;
  options.heads = 4;
  options.kv_heads = 1;  // as the 270M: every rank of a stage has the one KV head
  options.head_dim = 32;
  options.window = 9;
  options.window_period = 3;
  options.tied = true;
  options.type = QuantType::kQ8_0;
  return options;
}

TEST(SplitsTest, PostNormsAndWindows) {
  expect_all_splits_equal(windowed_gemma(), KvType::kF16, 4);
  TinyOptions options = windowed_gemma();
  options.type = QuantType::kF32;
  options.biases = true;
  options.kv_heads = 2;
  expect_all_splits_equal(options, KvType::kF32, 3);
}

TEST(SplitsTest, ChunksOfAnySizeWithWindows) {
  const TinyJob job(windowed_gemma());
  const Plan plan = job.plan(tiny_request());
  const auto tokens = tiny_tokens(61, 80);
  const Logits expected = job.logits(plan, tokens, 61);
  for (const int64_t chunk : {1, 2, 3, 7, 16, 31, 32, 33, 60}) {
    SCOPED_TRACE("chunks of " + std::to_string(chunk));
    EXPECT_EQ(job.logits(plan, tokens, chunk), expected);
  }
}

TEST(SplitsTest, RanksWithNothing) {
  // Two heads of a quant block together, 64 feed-forward columns, 20 tokens: four ranks cannot all
  // have something of each.
  TinyOptions options;
  options.heads = 2;
  options.kv_heads = 1;
  options.ff = 64;
  options.vocab = 20;
  options.n_layers = 1;
  const TinyJob job(options);
  const auto tokens = tiny_tokens(9, options.vocab);
  const Logits expected = job.logits(job.plan(tiny_request()), tokens);
  const Plan plan = job.plan(tiny_request({{0, {1, 1, 1, 1}}}));
  bool somebody_empty = false;
  for (const RankPart& part : plan.parts) {
    somebody_empty |= part.layers[0].heads.empty() && part.layers[0].ff.empty();
  }
  EXPECT_TRUE(somebody_empty);
  EXPECT_EQ(job.logits(plan, tokens), expected);
}

TEST(SplitsTest, WideAndNarrowStages) {
  TinyOptions options;
  options.n_layers = 5;
  options.heads = 8;
  options.type = QuantType::kQ8_0;
  const TinyJob job(options);
  const auto tokens = tiny_tokens(12, options.vocab);
  const Logits expected = job.logits(job.plan(tiny_request()), tokens);
  for (const char* split : {"1@1:1:1+4@1", "2@1+3@1:2:1", "1@1+1@3:1+3@1:1", "4@5:1+1@1:7"}) {
    SCOPED_TRACE(split);
    EXPECT_EQ(job.logits(job.plan(tiny_request(parse_split(split))), tokens, 5), expected);
  }
}

TEST(SplitsTest, ChunksOfAnySizeGiveTheSameBits) {
  for (const QuantType type : {QuantType::kF32, QuantType::kQ8_0, QuantType::kQ4_1}) {
    TinyOptions options;
    options.type = type;
    options.head_dim = 32;
    const TinyJob job(options);
    const Plan plan = job.plan(tiny_request());
    const auto tokens = tiny_tokens(61, options.vocab);
    const Logits expected = job.logits(plan, tokens, 61);
    for (const int64_t chunk : {1, 2, 3, 7, 16, 31, 32, 33, 60}) {
      SCOPED_TRACE(std::string(quant_info(type).name) + ", chunks of " + std::to_string(chunk));
      EXPECT_EQ(job.logits(plan, tokens, chunk), expected);
    }
  }
}

TEST(SplitsTest, ALaterTokenDoesNotChangeAnEarlierRow) {
  const TinyJob job(TinyOptions{});
  const Plan plan = job.plan(tiny_request());
  auto tokens = tiny_tokens(20, 80);
  const Logits before = job.logits(plan, tokens);
  tokens[19] = (tokens[19] + 1) % 80;
  const Logits after = job.logits(plan, tokens);
  for (size_t i = 0; i < 19; ++i) EXPECT_EQ(before[i], after[i]) << "row " << i;
  EXPECT_NE(before[19], after[19]);
}

// Three sequences grow in the same steps, their pages interleaved; each must get what it gets
// alone.
void expect_neighbours_do_not_matter(const TinyJob& job, const std::vector<StagePin>& split) {
  const Plan plan = job.plan(tiny_request(split));
  const std::vector<std::vector<int32_t>> texts = {tiny_tokens(40, 80, 1), tiny_tokens(33, 80, 2),
                                                   tiny_tokens(7, 80, 3)};
  std::vector<Logits> alone;
  for (const auto& text : texts) alone.push_back(job.logits(plan, text));
  std::vector<Logits> together(texts.size());
  job.run(plan, [&](TinyRank& rank) {
    StepBatch batch(plan.limits, plan.kv.n_pages);
    StepResult result(plan.limits, static_cast<int64_t>(plan.stages.back().ranks.size()));
    std::vector<size_t> at(texts.size(), 0);
    // Rows a step of each sequence: chunks beside single tokens, and steps without one of them.
    const std::vector<std::vector<size_t>> steps = {
        {20, 0, 1}, {1, 30, 0}, {0, 1, 4}, {1, 1, 1}, {18, 1, 1}};
    for (const auto& step : steps) {
      batch.clear();
      for (size_t s = 0; s < texts.size(); ++s) {
        if (step[s] == 0) continue;
        const auto first = texts[s].begin() + static_cast<int64_t>(at[s]);
        TinyJob::append(batch, plan, {first, first + static_cast<int64_t>(step[s])},
                        static_cast<int64_t>(at[s]), static_cast<int32_t>(s),
                        static_cast<int32_t>(s), 3);
        at[s] += step[s];
      }
      rank.pipeline.forward(batch, rank.mesh.front() ? &result : nullptr);
      if (!rank.mesh.front()) continue;
      size_t row = 0;
      for (size_t s = 0; s < texts.size(); ++s) {
        for (size_t i = 0; i < step[s]; ++i, ++row) {
          const auto& whole = result.rows[row].whole;
          together[s].emplace_back(whole.begin(), whole.end());
        }
      }
    }
  });
  for (size_t s = 0; s < texts.size(); ++s) {
    EXPECT_EQ(together[s], alone[s]) << "sequence " << s;
  }
}

TEST(SplitsTest, NeighboursInAStepDoNotMatter) {
  TinyOptions options;
  options.type = QuantType::kQ8_0;
  options.head_dim = 32;
  const TinyJob job(options);
  expect_neighbours_do_not_matter(job, {});
  expect_neighbours_do_not_matter(job, parse_split("1@1:1+1@1"));
  expect_neighbours_do_not_matter(TinyJob(windowed_gemma()), parse_split("1:1"));
}

TEST(SplitsTest, TwoRunsGiveTheSameBits) {
  const TinyJob job(TinyOptions{});
  const Plan plan = job.plan(tiny_request({{0, {2, 1}}}));
  const auto tokens = tiny_tokens(30, 80);
  EXPECT_EQ(job.logits(plan, tokens), job.logits(plan, tokens));
}

TEST(SplitsTest, TheArenasAreTheLedgersBytes) {
  TinyOptions gemma = windowed_gemma();
  gemma.n_layers = 2;
  for (const TinyOptions& options : {TinyOptions{}, gemma}) {
    const TinyJob job(options);
    for (const char* split : {"1", "1:1", "1+1", "1@1:1+1@1"}) {
      SCOPED_TRACE(options.architecture + " " + split);
      const Plan plan = job.plan(tiny_request(parse_split(split)));
      job.run(plan, [&](TinyRank& rank) {
        const int r = rank.mesh.rank;
        EXPECT_EQ(rank.pipeline.arena_bytes(), plan.rank_bytes(r) - plan.rank_bytes(r, "program"));
      });
    }
  }
}

}  // namespace
}  // namespace spillway::testing

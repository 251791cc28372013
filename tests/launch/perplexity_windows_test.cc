// Chunks, windows and their steps against cases written out by hand from the definitions on top of
// perplexity_windows.h; the likelihood and its error against hand calculations.
#include "launch/perplexity_windows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <vector>

namespace spillway::testing {
namespace {

using Windows = std::vector<Window>;
using Steps = std::vector<WindowStep>;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Tokens of the text whose likelihood counts, with how often.
std::multiset<int64_t> scored(const Windows& windows, int64_t context) {
  std::multiset<int64_t> tokens;
  for (const Window& window : windows) {
    for (int64_t i = window.first_scored; i < context - 1; ++i) {
      tokens.insert(window.begin + i + 1);
    }
  }
  return tokens;
}

TEST(PerplexityWindowsTest, ChunksAsLlamaPerplexityCutsThem) {
  EXPECT_EQ(perplexity_windows(1600, 512, 0, 0), (Windows{{0, 256}, {512, 256}, {1024, 256}}));
  EXPECT_EQ(perplexity_windows(1536, 512, 0, 0).size(), 3U);
  EXPECT_EQ(perplexity_windows(1535, 512, 0, 0).size(), 2U);
  EXPECT_EQ(perplexity_windows(1600, 512, 0, 2), (Windows{{0, 256}, {512, 256}}));
  EXPECT_EQ(perplexity_windows(1600, 512, 0, 99).size(), 3U);
  // n_ctx - n_ctx / 2 - 1 a chunk.
  EXPECT_EQ(scored(perplexity_windows(1600, 512, 0, 0), 512).size(), 3U * 255U);
  // C = 8: the logits at 4, 5, 6 predict the tokens 5, 6, 7; odd C: half of it rounded down.
  EXPECT_EQ(scored(perplexity_windows(16, 8, 0, 0), 8),
            (std::multiset<int64_t>{5, 6, 7, 13, 14, 15}));
  EXPECT_EQ(scored(perplexity_windows(7, 7, 0, 0), 7), (std::multiset<int64_t>{4, 5, 6}));
  EXPECT_EQ(scored(perplexity_windows(3, 3, 0, 0), 3), (std::multiset<int64_t>{2}));
}

TEST(PerplexityWindowsTest, ShorterThanOneChunkIsNothing) {
  EXPECT_TRUE(perplexity_windows(511, 512, 0, 0).empty());
  EXPECT_TRUE(perplexity_windows(511, 512, 512, 0).empty());
  EXPECT_TRUE(perplexity_windows(0, 512, 1, 0).empty());
  EXPECT_EQ(perplexity_windows(512, 512, 0, 0).size(), 1U);
  EXPECT_EQ(perplexity_windows(512, 512, 1, 0).size(), 1U);
}

TEST(PerplexityWindowsTest, WindowsThatOverlapScoreTheirLastTokens) {
  // C = 8, N = 3: tokens 0-7, 3-10, 6-13; the last three of each.
  EXPECT_EQ(perplexity_windows(15, 8, 3, 0), (Windows{{0, 0}, {3, 4}, {6, 4}}));
  EXPECT_EQ(perplexity_windows(17, 8, 3, 0).back(), (Window{9, 4}));
  EXPECT_EQ(perplexity_windows(17, 8, 3, 1), (Windows{{0, 0}}));
  // Every token but the first of all, once, up to the last window's end.
  for (int64_t stride = 1; stride <= 7; ++stride) {
    const Windows windows = perplexity_windows(50, 8, stride, 0);
    std::multiset<int64_t> expected;
    for (int64_t token = 1; token < windows.back().begin + 8; ++token) expected.insert(token);
    EXPECT_EQ(scored(windows, 8), expected) << "stride " << stride;
    EXPECT_GT(windows.back().begin + 8, 50 - stride) << "stride " << stride;
  }
  // N = C: side by side, nothing predicts a window's first token.
  EXPECT_EQ(scored(perplexity_windows(9, 4, 4, 0), 4), (std::multiset<int64_t>{1, 2, 3, 5, 6, 7}));
}

TEST(PerplexityWindowsTest, StepsWithinTheLimits) {
  // 511 positions, the last 255 scored.
  EXPECT_EQ(window_steps({0, 256}, 512, 512, 255), (Steps{{511, 255}}));
  EXPECT_EQ(window_steps({0, 256}, 512, 512, 128), (Steps{{384, 128}, {127, 127}}));
  EXPECT_EQ(window_steps({0, 256}, 512, 100, 512),
            (Steps{{100, 0}, {100, 0}, {100, 44}, {100, 100}, {100, 100}, {11, 11}}));
  EXPECT_EQ(window_steps({0, 0}, 8, 512, 3), (Steps{{3, 3}, {3, 3}, {1, 1}}));
  EXPECT_EQ(window_steps({0, 6}, 8, 512, 3), (Steps{{7, 1}}));
  EXPECT_EQ(window_steps({0, 6}, 8, 6, 3), (Steps{{6, 0}, {1, 1}}));
}

TEST(PerplexityWindowsTest, StepsCoverEveryPositionOnce) {
  for (const int64_t context : {3, 8, 33}) {
    for (int64_t first = 0; first < context - 1; ++first) {
      for (const int64_t rows : {1, 2, 7, 64}) {
        for (const int64_t logit_rows : {1, 3, 64}) {
          int64_t at = 0;
          for (const WindowStep& step : window_steps({0, first}, context, rows, logit_rows)) {
            ASSERT_GE(step.n_rows, 1);
            ASSERT_LE(step.n_rows, rows);
            ASSERT_LE(step.n_scored, std::min(step.n_rows, logit_rows));
            at += step.n_rows;
            EXPECT_EQ(step.n_scored, std::min(step.n_rows, std::max<int64_t>(0, at - first)));
          }
          EXPECT_EQ(at, context - 1);
        }
      }
    }
  }
}

TEST(TokenNllTest, ByHand) {
  // softmax(0, ln 3) = (1/4, 3/4).
  const std::vector<float> two = {0.0F, std::log(3.0F)};
  EXPECT_NEAR(token_nll(two, 0), std::log(4.0), 1e-7);
  EXPECT_NEAR(token_nll(two, 1), std::log(4.0 / 3.0), 1e-7);
  // All equal, also where exp alone would overflow or vanish.
  for (const float level : {0.0F, 1000.0F, -1000.0F, 3e38F}) {
    EXPECT_NEAR(token_nll(std::vector<float>(50, level), 17), std::log(50.0), 1e-12) << level;
  }
  // A logit that is far away costs its distance, in double: 1 + e^-40 is 1 in float.
  const std::vector<float> far = {0.0F, -40.0F};
  EXPECT_DOUBLE_EQ(token_nll(far, 1), 40.0 + std::log1p(std::exp(-40.0)));
  EXPECT_NEAR(token_nll(far, 0), std::exp(-40.0), 1e-15);
}

TEST(TokenNllTest, NotFiniteWhereTheLogitsAreNot) {
  EXPECT_FALSE(std::isfinite(token_nll(std::vector<float>{0.0F, std::nanf("")}, 0)));
  EXPECT_FALSE(std::isfinite(token_nll(std::vector<float>{std::nanf(""), 0.0F}, 1)));
  EXPECT_FALSE(std::isfinite(token_nll(std::vector<float>{kInfinity, 0.0F}, 1)));
  EXPECT_FALSE(std::isfinite(token_nll(std::vector<float>{-kInfinity, 0.0F}, 0)));
  EXPECT_FALSE(std::isfinite(token_nll(std::vector<float>{-kInfinity, -kInfinity}, 0)));
}

TEST(NllSumTest, ByHand) {
  NllSum sum;
  EXPECT_EQ(sum.error(), 0);
  sum.add(1);
  EXPECT_EQ(sum.error(), 0);
  for (const double nll : {2.0, 3.0, 6.0}) sum.add(nll);
  // Mean 3; mean of squares 12.5, less 9 is 3.5; sqrt(3.5 / 3) of the mean.
  EXPECT_EQ(sum.count(), 4);
  EXPECT_DOUBLE_EQ(sum.mean(), 3);
  EXPECT_DOUBLE_EQ(sum.perplexity(), std::exp(3.0));
  EXPECT_DOUBLE_EQ(sum.error(), std::exp(3.0) * std::sqrt(3.5 / 3));
}

TEST(NllSumTest, SmallSpreadOnALargeMean) {
  NllSum sum;
  for (int i = 0; i < 1000; ++i) sum.add(20 + (i % 2 == 0 ? 1e-9 : -1e-9));
  EXPECT_NEAR(sum.error() / sum.perplexity(), 1e-9 / std::sqrt(999.0), 1e-14);
}

}  // namespace
}  // namespace spillway::testing

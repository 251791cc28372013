// What verify measures between two rows of logits, and its rule where a GPU computes.
#include "launch/split_difference.h"

#include <gtest/gtest.h>

#include <cmath>

namespace spillway::testing {
namespace {

TEST(SplitDifferenceTest, DivergenceByHand) {
  // p = {1/2, 1/2}, q = {3/4, 1/4}: KL = log(4/3) / 2.
  const std::vector<float> p = {7, 7};
  const std::vector<float> q = {std::log(3.0F), 0};
  EXPECT_NEAR(kl_divergence(p, q), std::log(4.0 / 3) / 2, 1e-7);
  EXPECT_EQ(kl_divergence(p, p), 0);
}

TEST(SplitDifferenceTest, RowsAddUp) {
  Difference d;
  const std::vector<float> reference = {1, 2, 3};
  d.add_row(reference, reference, 2);
  EXPECT_EQ(d.max_logit, 0);
  EXPECT_TRUE(d.same_bits);
  const std::vector<float> other = {1, 2.5F, 2};
  d.add_row(reference, other, 2);
  EXPECT_EQ(d.max_logit, 1);
  EXPECT_FALSE(d.same_bits);
  EXPECT_NEAR(d.kl, kl_divergence(reference, other) / 2, 1e-12);
  const std::vector<float> broken = {1, std::nanf(""), 3};
  d.add_row(reference, broken, 2);
  EXPECT_TRUE(std::isinf(d.max_logit));
}

TEST(SplitDifferenceTest, BitsOfRows) {
  EXPECT_TRUE(same_bits({{1, 2}, {3}}, {{1, 2}, {3}}));
  EXPECT_FALSE(same_bits({{1, 2}, {3}}, {{1, 2}}));
  EXPECT_FALSE(same_bits({{1, 2}}, {{1, 2, 3}}));
  EXPECT_FALSE(same_bits({{0.0F}}, {{-0.0F}}));
}

TEST(SplitDifferenceTest, OnGpusBitsRepeatAndTheDivergenceIsBounded) {
  Difference d;
  d.max_logit = 0.3;
  d.kl = 0.02;
  d.greedy_prefix = 3;
  d.same_bits = false;
  EXPECT_TRUE(passes_on_gpus(d, true, HUGE_VAL));
  EXPECT_FALSE(passes_on_gpus(d, false, HUGE_VAL));
  EXPECT_TRUE(passes_on_gpus(d, true, 0.3));
  EXPECT_FALSE(passes_on_gpus(d, true, 0.29));
  d.kl = 0.0201;
  EXPECT_FALSE(passes_on_gpus(d, true, HUGE_VAL));
  d.kl = 0;
  d.max_logit = HUGE_VAL;  // a NaN
  EXPECT_FALSE(passes_on_gpus(d, true, HUGE_VAL));
}

}  // namespace
}  // namespace spillway::testing

// check_sampling: every parameter out of its range is named, with the range.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "tests/support/sampling.h"

namespace spillway::testing {
namespace {

void expect_refused(const SamplingParams& params, const std::string& part,
                    const StepLimits& limits = limits_of(true)) {
  const std::string reason = check_sampling(params, kVocab, limits);
  EXPECT_NE(reason.find(part), std::string::npos) << "\"" << part << "\" is not in: " << reason;
}

TEST(CheckSamplingTest, DefaultsAndEndsOfRangesAreFine) {
  EXPECT_EQ(check_sampling({}, kVocab, StepLimits()), "");
  EXPECT_EQ(check_sampling(greedy(), kVocab, StepLimits()), "");
  SamplingParams p = plain_draw(1);
  p.temperature = 1000;
  p.min_p = 0;
  p.frequency_penalty = -2;
  p.presence_penalty = 2;
  p.repeat_penalty = 1e-3F;
  p.repeat_last_n = 0;
  p.logit_bias = {{0, -kInf}, {kVocab - 1, 100}};
  EXPECT_EQ(check_sampling(p, kVocab, limits_of(true)), "");
}

TEST(CheckSamplingTest, EachParameterOutOfRange) {
  const float nan = std::nanf("");
  const auto with = [](float SamplingParams::*member, float value, const std::string& part) {
    SamplingParams params;
    params.*member = value;
    expect_refused(params, part);
  };
  for (const float bad : {-0.1F, kInf, nan}) {
    with(&SamplingParams::temperature, bad, "temperature is");
  }
  for (const float bad : {0.0F, -1.0F, 1.5F, nan}) with(&SamplingParams::top_p, bad, "top_p is");
  for (const float bad : {-0.1F, 1.0F, nan}) with(&SamplingParams::min_p, bad, "min_p is");
  for (const float bad : {0.0F, -1.0F, kInf, nan}) {
    with(&SamplingParams::repeat_penalty, bad, "repeat_penalty is");
  }
  for (const float bad : {-2.1F, 2.1F, nan}) {
    with(&SamplingParams::frequency_penalty, bad, "frequency_penalty is");
    with(&SamplingParams::presence_penalty, bad, "presence_penalty is");
  }
  SamplingParams params;
  params.top_k = -1;
  expect_refused(params, "top_k is -1, must be 0 (all) or more");
  params = {};
  params.repeat_last_n = -1;
  expect_refused(params, "repeat_last_n is -1");
  with(&SamplingParams::top_p, 1.5F, "top_p is 1.5, must be in (0, 1]");
}

TEST(CheckSamplingTest, BiasOfUnknownOrDoubledTokens) {
  SamplingParams params;
  params.logit_bias = {{kVocab, 1.0F}};
  expect_refused(params, "logit_bias names token 50, the vocabulary has 50");
  params.logit_bias = {{-1, 1.0F}};
  expect_refused(params, "token -1");
  params.logit_bias = {{1, kInf}};
  expect_refused(params, "a number or -inf");
  params.logit_bias = {{1, std::nanf("")}};
  expect_refused(params, "a number or -inf");
  params.logit_bias = {{1, 1.0F}, {2, 1.0F}, {1, 2.0F}};
  expect_refused(params, "logit_bias names token 1 twice");
}

TEST(CheckSamplingTest, MoreThanTheJobKeepsRoomFor) {
  SamplingParams params;
  params.repeat_penalty = 1.1F;
  params.repeat_last_n = 25;
  expect_refused(params, "touch 25 tokens, at most 24");
  params.repeat_penalty = 1;  // off: the window does not matter
  EXPECT_EQ(check_sampling(params, kVocab, limits_of(true)), "");
  params = plain_draw(1);
  expect_refused(params, "no room for whole rows", limits_of(false));
  params.top_k = 49;
  expect_refused(params, "no room for whole rows", limits_of(false));
  params.top_k = 48;
  EXPECT_EQ(check_sampling(params, kVocab, limits_of(false)), "");
  params.logit_bias = {{1, 1.0F}};
  expect_refused(params, "no room for whole rows", limits_of(false));
  EXPECT_EQ(check_sampling(params, kVocab, limits_of(true)), "");
  SamplingParams best = greedy();
  best.repeat_penalty = 1.1F;
  best.repeat_last_n = 24;
  StepLimits narrow = limits_of(false);
  narrow.max_candidates = 24;
  expect_refused(best, "at most 23", narrow);
  narrow.max_candidates = 25;
  EXPECT_EQ(check_sampling(best, kVocab, narrow), "");
}

}  // namespace
}  // namespace spillway::testing

// The head: candidates, named tokens and whole rows that ranks with parts of the vocabulary send to
// the front, against whole rows from one rank.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "tests/support/tiny_job.h"

namespace spillway::testing {
namespace {

using Candidates = std::vector<std::pair<int32_t, float>>;
constexpr float kInf = std::numeric_limits<float>::infinity();

struct Ask {
  int32_t row;
  int32_t n_candidates;
  std::vector<int32_t> wanted;
};
struct Answer {
  Candidates candidates;
  std::vector<float> wanted;
  std::vector<float> whole;
};

std::vector<Answer> ask_head(const TinyJob& job, const Plan& plan,
                             const std::vector<int32_t>& tokens, const std::vector<Ask>& asks) {
  std::vector<Answer> answers;
  job.run(plan, [&](TinyRank& rank) {
    StepBatch batch(plan.limits, plan.kv.n_pages);
    StepResult result(plan.limits, static_cast<int64_t>(plan.stages.back().ranks.size()));
    TinyJob::append(batch, plan, tokens, 0, 0, 0);
    batch.logit_rows.clear();
    for (const Ask& ask : asks) {
      const auto n_wanted = static_cast<int32_t>(ask.wanted.size());
      batch.logit_rows.push_back({ask.row, ask.n_candidates, n_wanted});
      batch.wanted.insert(batch.wanted.end(), ask.wanted.begin(), ask.wanted.end());
    }
    rank.pipeline.forward(batch, rank.mesh.front() ? &result : nullptr);
    if (!rank.mesh.front()) return;
    ASSERT_EQ(result.n_rows, static_cast<int64_t>(asks.size()));
    for (size_t i = 0; i < asks.size(); ++i) {
      Answer answer;
      for (const auto& c : result.rows[i].candidates) {
        answer.candidates.emplace_back(c.token, c.logit);
      }
      answer.wanted = result.rows[i].wanted;
      answer.whole.assign(result.rows[i].whole.begin(), result.rows[i].whole.end());
      answers.push_back(answer);
    }
  });
  return answers;
}

// Best first; equal logits by token; what is not a number last.
Candidates best_of(const std::vector<float>& row, size_t n) {
  Candidates all;
  for (size_t i = 0; i < row.size(); ++i) all.emplace_back(static_cast<int32_t>(i), row[i]);
  std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) {
    if (std::isnan(a.second) || std::isnan(b.second)) {
      return !std::isnan(a.second) && std::isnan(b.second);
    }
    return a.second > b.second;
  });
  all.resize(std::min(n, all.size()));
  return all;
}

PlanRequest request_of(const char* split) {
  PlanRequest request = tiny_request(parse_split(split));
  request.limits.max_candidates = 100;
  return request;
}

constexpr const char* kSplits[] = {"1",       "1:1",         "1:1:1",   "5:1:1:1",
                                   "1+1:1:1", "1@1:1+1@3:1", "1:1:1+1", "1:9:1:1:1"};

TEST(HeadTest, CandidatesNamedTokensAndWholeRows) {
  TinyOptions options;
  options.vocab = 75;
  const TinyJob job(options);
  const auto tokens = tiny_tokens(20, options.vocab);
  const auto rows = job.logits(job.plan(tiny_request()), tokens);
  const std::vector<Ask> asks = {{0, 1, {}},    {3, 5, {74, 0, 16, 15, 0}},
                                 {7, 0, {}},    {8, 20, {}},
                                 {9, 0, {3}},   {15, 75, {40}},
                                 {18, 100, {}}, {19, 40, {1, 2, 3}}};
  for (const char* split : kSplits) {
    SCOPED_TRACE(split);
    const auto answers = ask_head(job, job.plan(request_of(split)), tokens, asks);
    ASSERT_EQ(answers.size(), asks.size());
    for (size_t i = 0; i < asks.size(); ++i) {
      SCOPED_TRACE("asked " + std::to_string(i));
      const std::vector<float>& row = rows[static_cast<size_t>(asks[i].row)];
      std::vector<float> wanted;
      for (const int32_t token : asks[i].wanted) wanted.push_back(row[static_cast<size_t>(token)]);
      EXPECT_EQ(answers[i].wanted, wanted);
      if (asks[i].n_candidates > 0) {
        EXPECT_EQ(answers[i].candidates, best_of(row, static_cast<size_t>(asks[i].n_candidates)));
        EXPECT_TRUE(answers[i].whole.empty());
      } else {
        EXPECT_EQ(answers[i].whole, row);
        EXPECT_TRUE(answers[i].candidates.empty());
      }
    }
  }
}

TEST(HeadTest, TiesGoToTheSmallerTokenOnEverySplit) {
  TinyOptions options;
  options.vocab = 75;
  for (const size_t token : {5, 20, 41, 60, 74}) {
    for (size_t i = 0; i < 64; ++i) options.poke["output.weight"][token * 64 + i] = 0;
  }
  const TinyJob job(options);
  const auto tokens = tiny_tokens(4, options.vocab);
  const auto rows = job.logits(job.plan(tiny_request()), tokens);
  for (const size_t token : {5, 20, 41, 60, 74}) ASSERT_EQ(rows[3][token], 0.0F);
  const Candidates expected = best_of(rows[3], 75);
  for (const char* split : kSplits) {
    SCOPED_TRACE(split);
    const Plan plan = job.plan(request_of(split));
    for (const int32_t n : {75, 38, 39, 40, 41}) {
      const auto answers = ask_head(job, plan, tokens, {{3, n, {}}});
      EXPECT_EQ(answers[0].candidates, Candidates(expected.begin(), expected.begin() + n));
    }
  }
}

TEST(HeadTest, RowsThatAreNotNumbersComeLast) {
  TinyOptions options;
  options.vocab = 75;
  for (const size_t token : {0, 17, 18, 40, 70}) {
    options.poke["output.weight"][token * 64] = std::nanf("");
  }
  const TinyJob job(options);
  const auto tokens = tiny_tokens(4, options.vocab);
  for (const char* split : kSplits) {
    SCOPED_TRACE(split);
    const auto answers =
        ask_head(job, job.plan(request_of(split)), tokens, {{3, 75, {17, 1}}, {2, 60, {}}});
    ASSERT_EQ(answers[0].candidates.size(), 75U);
    for (size_t i = 0; i < 75; ++i) {
      EXPECT_EQ(std::isnan(answers[0].candidates[i].second), i >= 70) << i;
    }
    for (size_t i = 1; i < 70; ++i) {
      EXPECT_GE(answers[0].candidates[i - 1].second, answers[0].candidates[i].second);
    }
    ASSERT_EQ(answers[1].candidates.size(), 60U);
    for (const auto& [token, logit] : answers[1].candidates) EXPECT_FALSE(std::isnan(logit));
    EXPECT_FALSE(std::isnan(answers[0].wanted[1]));
    EXPECT_NE(answers[0].wanted[1], -kInf);
  }
}

TEST(HeadTest, AStepWithoutLogits) {
  const TinyJob job(TinyOptions{});
  for (const char* split : kSplits) {
    SCOPED_TRACE(split);
    EXPECT_TRUE(ask_head(job, job.plan(request_of(split)), tiny_tokens(5, 80), {}).empty());
  }
}

TEST(HeadTest, TheLargestStepThatTheLimitsAllowFits) {
  TinyOptions options;
  options.vocab = 75;
  const TinyJob job(options);
  for (const bool all_logits : {false, true}) {
    PlanRequest request = tiny_request({{0, {1, 3}}});
    request.limits = {8, 1, 8, 10, 6, all_logits};
    std::vector<Ask> asks;
    for (int32_t row = 0; row < 8; ++row) {
      asks.push_back({row, all_logits ? 0 : 10, {0, 1, 2, 3, 74, 73}});
    }
    const auto answers = ask_head(job, job.plan(request), tiny_tokens(8, 75), asks);
    EXPECT_EQ(answers.size(), 8U);
  }
}

TEST(HeadDeathTest, MoreThanTheLimitsAllow) {
  const TinyJob job(TinyOptions{});
  PlanRequest request = tiny_request();
  request.limits = {8, 1, 2, 4, 2, false};
  const Plan plan = job.plan(request);
  const auto tokens = tiny_tokens(8, 80);
  const std::vector<Ask> rows = {{0, 1, {}}, {1, 1, {}}, {2, 1, {}}};
  EXPECT_DEATH(ask_head(job, plan, tokens, rows), "head.cc|tensor.h");
  EXPECT_DEATH(ask_head(job, plan, tokens, {{0, 40, {}}, {1, 40, {}}}), "head.cc");
  EXPECT_DEATH(ask_head(job, plan, tiny_tokens(9, 80), {}), "9 vs 8");
}

}  // namespace
}  // namespace spillway::testing

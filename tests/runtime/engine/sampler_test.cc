// Sampler against a brute-force one that sees whole rows and does one thing at a time, and the
// promise that a row's best candidates decide as the whole row does.
#include "runtime/engine/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <set>

#include "tests/support/sampling.h"

namespace spillway::testing {
namespace {

RowResult whole_row(const std::vector<float>& logits) {
  RowResult row;
  row.whole = logits;
  return row;
}

int32_t sample_whole(Sampler& sampler, const std::vector<float>& logits) {
  std::vector<int32_t> wanted;
  const LogitRow ask = sampler.ask(0, wanted);
  RowResult row = whole_row(logits);
  for (const int32_t token : wanted) row.wanted.push_back(logits[static_cast<size_t>(token)]);
  EXPECT_EQ(static_cast<size_t>(ask.n_wanted), wanted.size());
  return sampler.sample(row, wanted);
}

// What the head would bring for the sampler's own question.
int32_t sample_asked(Sampler& sampler, const std::vector<float>& logits) {
  std::vector<int32_t> wanted = {-7};  // another row's: must be left alone
  const LogitRow ask = sampler.ask(3, wanted);
  EXPECT_EQ(ask.row, 3);
  EXPECT_EQ(wanted[0], -7);
  wanted.erase(wanted.begin());
  EXPECT_EQ(static_cast<size_t>(ask.n_wanted), wanted.size());
  if (ask.n_candidates == 0) return sample_whole(sampler, logits);
  RowResult row;
  for (size_t i = 0; i < logits.size(); ++i) {
    row.candidates.push_back({static_cast<int32_t>(i), logits[i]});
  }
  std::stable_sort(row.candidates.begin(), row.candidates.end(),
                   [](const auto& a, const auto& b) { return a.logit > b.logit; });
  if (row.candidates.size() > static_cast<size_t>(ask.n_candidates)) {
    row.candidates.resize(static_cast<size_t>(ask.n_candidates));
  }
  for (const int32_t token : wanted) row.wanted.push_back(logits[static_cast<size_t>(token)]);
  return sampler.sample(row, wanted);
}

std::vector<float> random_row(std::mt19937& random, float spread = 2) {
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> row(kVocab);
  for (float& logit : row) logit = normal(random);
  return row;
}

// --- brute force ---------------------------------------------------------------------------------

class BruteSampler {
 public:
  explicit BruteSampler(SamplingParams params) : p_(std::move(params)), random_(p_.seed) {}

  void accept(int32_t token) { history_.push_back(token); }

  int32_t sample(const std::vector<float>& logits) {
    std::vector<std::pair<float, int32_t>> pool;  // -logit, token: sorts best first
    for (int32_t t = 0; t < static_cast<int32_t>(logits.size()); ++t) {
      pool.emplace_back(-changed(t, logits[static_cast<size_t>(t)]), t);
    }
    std::sort(pool.begin(), pool.end());
    if (p_.temperature == 0) return pool[0].second;
    if (p_.top_k > 0 && pool.size() > static_cast<size_t>(p_.top_k)) {
      pool.resize(static_cast<size_t>(p_.top_k));
    }
    keep_top_p(pool);
    const auto chance = shares(pool, 1.0);
    while (chance[pool.size() - 1] < static_cast<double>(p_.min_p) * chance[0]) pool.pop_back();
    const auto hot = shares(pool, static_cast<double>(p_.temperature));
    const double dice = static_cast<double>(random_() >> 11) / 9007199254740992.0;
    double below = 0;
    for (size_t i = 0; i < pool.size(); ++i) {
      below += hot[i];
      if (dice < below) return pool[i].second;
    }
    return pool.back().second;
  }

 private:
  float changed(int32_t token, float logit) const {
    for (const auto& [biased, bias] : p_.logit_bias) {
      if (biased == token) logit += bias;
    }
    const size_t look = std::min(history_.size(), static_cast<size_t>(p_.repeat_last_n));
    const auto times =
        std::count(history_.end() - static_cast<int64_t>(look), history_.end(), token);
    if (times == 0) return logit;
    logit = logit > 0 ? logit / p_.repeat_penalty : logit * p_.repeat_penalty;
    return logit - static_cast<float>(times) * p_.frequency_penalty - p_.presence_penalty;
  }
  static std::vector<double> shares(const std::vector<std::pair<float, int32_t>>& pool,
                                    double temperature) {
    double sum = 0;
    std::vector<double> out;
    for (const auto& [minus_logit, token] : pool) {
      out.push_back(std::exp((static_cast<double>(pool[0].first) - minus_logit) / temperature));
      sum += out.back();
    }
    for (double& share : out) share /= sum;
    return out;
  }
  void keep_top_p(std::vector<std::pair<float, int32_t>>& pool) const {
    const auto chance = shares(pool, 1.0);
    double held = 0;
    for (size_t i = 0; i < pool.size() && p_.top_p < 1; ++i) {
      held += chance[i];
      if (held >= static_cast<double>(p_.top_p)) {
        pool.resize(i + 1);
        return;
      }
    }
  }

  SamplingParams p_;
  std::vector<int32_t> history_;
  std::mt19937_64 random_;
};

SamplingParams random_params(std::mt19937& random) {
  const auto real = [&](float low, float high) {
    return low + (high - low) * static_cast<float>(random() % 1001) / 1000.0F;
  };
  SamplingParams p;
  p.seed = random();
  p.temperature = random() % 5 == 0 ? 0.0F : real(0.1F, 3);
  p.top_k = random() % 4 == 0 ? 0 : 1 + static_cast<int32_t>(random() % 24);
  p.top_p = random() % 3 == 0 ? 1.0F : real(0.05F, 0.999F);
  p.min_p = random() % 3 == 0 ? 0.0F : real(0, 0.5F);
  p.repeat_penalty = random() % 2 == 0 ? 1.0F : real(0.5F, 2);
  p.frequency_penalty = random() % 2 == 0 ? 0.0F : real(-2, 2);
  p.presence_penalty = random() % 2 == 0 ? 0.0F : real(-2, 2);
  p.repeat_last_n = static_cast<int32_t>(random() % 20);
  std::set<int32_t> biased;
  while (biased.size() < random() % 5) biased.insert(static_cast<int32_t>(random() % kVocab));
  for (const int32_t token : biased) {
    p.logit_bias.emplace_back(token, random() % 3 == 0 ? -kInf : real(-4, 4));
  }
  return p;
}

TEST(SamplerTest, RandomParametersDrawAsBruteForceDoes) {
  std::mt19937 random(11);
  int by_candidates = 0;
  for (int i = 0; i < 400; ++i) {
    const SamplingParams params = random_params(random);
    ASSERT_EQ(check_sampling(params, kVocab, limits_of(true)), "");
    Sampler whole(params, kVocab, limits_of(true));
    Sampler asked(params, kVocab, limits_of(true));
    BruteSampler brute(params);
    for (int step = 0; step < 30; ++step) {
      const std::vector<float> row = random_row(random);
      const int32_t expected = brute.sample(row);
      ASSERT_EQ(sample_whole(whole, row), expected) << "parameters " << i << ", step " << step;
      ASSERT_EQ(sample_asked(asked, row), expected) << "parameters " << i << ", step " << step;
      std::vector<int32_t> wanted;
      by_candidates += asked.ask(0, wanted).n_candidates > 0 ? 1 : 0;
      for (const int32_t token : {expected, static_cast<int32_t>(random() % kVocab)}) {
        whole.accept(token);
        asked.accept(token);
        brute.accept(token);
      }
    }
  }
  EXPECT_GT(by_candidates, 3000);  // not the whole row every time
}

// --- one thing at a time -------------------------------------------------------------------------

TEST(SamplerTest, GreedyTakesTheBestAndOfEqualOnesTheSmallest) {
  Sampler sampler(greedy(), 5, limits_of(false));
  EXPECT_EQ(sample_whole(sampler, {1, 3, 2, 3, 0}), 1);
  EXPECT_EQ(sample_asked(sampler, {1, 3, 2, 3, 0}), 1);
  EXPECT_EQ(sample_asked(sampler, {5, 5, 5, 5, 5}), 0);
  EXPECT_EQ(sample_asked(sampler, {-kInf, -kInf, -kInf, -2, -kInf}), 3);
  EXPECT_EQ(sample_asked(sampler, {0, kInf, 7, kInf, 0}), 1);
}

TEST(SamplerTest, AsksForNoMoreThanItNeeds) {
  std::vector<int32_t> wanted;
  EXPECT_EQ(Sampler(greedy(), kVocab, limits_of(true)).ask(0, wanted).n_candidates, 1);
  SamplingParams params;
  params.top_k = 7;
  EXPECT_EQ(Sampler(params, kVocab, limits_of(true)).ask(0, wanted).n_candidates, 7);
  params.logit_bias = {{9, 1.0F}, {3, -1.0F}};
  const LogitRow ask = Sampler(params, kVocab, limits_of(true)).ask(0, wanted);
  EXPECT_EQ(ask.n_candidates, 9);
  EXPECT_EQ(wanted, (std::vector<int32_t>{3, 9}));
  wanted.clear();
  params.top_k = 0;
  EXPECT_EQ(Sampler(params, kVocab, limits_of(true)).ask(0, wanted).n_candidates, 0);
  params.top_k = 47;  // with two changed tokens more than 48
  EXPECT_EQ(Sampler(params, kVocab, limits_of(true)).ask(0, wanted).n_candidates, 0);
}

std::map<int32_t, double> frequencies(const SamplingParams& params, const std::vector<float>& row,
                                      int n = 20000) {
  Sampler sampler(params, static_cast<int64_t>(row.size()), limits_of(true));
  std::map<int32_t, double> seen;
  for (int i = 0; i < n; ++i) seen[sample_whole(sampler, row)] += 1.0 / n;
  return seen;
}

TEST(SamplerTest, DrawsWithTheSoftmaxsFrequencies) {
  const std::vector<float> row = {std::log(0.5F), std::log(0.3F), std::log(0.15F), std::log(0.05F)};
  const auto seen = frequencies(plain_draw(1), row);
  EXPECT_NEAR(seen.at(0), 0.5, 0.02);
  EXPECT_NEAR(seen.at(1), 0.3, 0.02);
  EXPECT_NEAR(seen.at(2), 0.15, 0.02);
  EXPECT_NEAR(seen.at(3), 0.05, 0.01);
  SamplingParams cold = plain_draw(2);
  cold.temperature = 0.5;  // squares the chances
  EXPECT_NEAR(frequencies(cold, row).at(0), 0.25 / 0.365, 0.02);
}

TEST(SamplerTest, EachFilterLeavesWhatItSays) {
  const std::vector<float> row = {std::log(0.5F), std::log(0.3F), std::log(0.15F), std::log(0.05F)};
  const auto left = [&](const SamplingParams& params) {
    return frequencies(params, row, 2000).size();
  };
  EXPECT_EQ(left(plain_draw(1)), 4U);
  SamplingParams params = plain_draw(1);
  params.top_k = 2;
  EXPECT_EQ(left(params), 2U);
  params = plain_draw(1);
  params.top_p = 0.79F;
  EXPECT_EQ(left(params), 2U);
  params.top_p = 0.81F;  // the token that crosses the line stays
  EXPECT_EQ(left(params), 3U);
  params.top_p = 1e-6F;
  EXPECT_EQ(left(params), 1U);
  params = plain_draw(1);
  params.min_p = 0.29F;
  EXPECT_EQ(left(params), 3U);
  params.min_p = 0.31F;
  EXPECT_EQ(left(params), 2U);
  params.min_p = 0.999F;
  EXPECT_EQ(left(params), 1U);
  params = plain_draw(1);
  params.temperature = 1e-30F;
  EXPECT_EQ(left(params), 1U);
}

TEST(SamplerTest, PenaltiesForgetWhatLeftTheWindow) {
  SamplingParams params = greedy();
  params.presence_penalty = 1.5F;
  params.repeat_last_n = 3;
  Sampler sampler(params, 4, limits_of(false));
  const std::vector<float> row = {3, 2, 0, 0};
  EXPECT_EQ(sample_asked(sampler, row), 0);
  sampler.accept(0);
  EXPECT_EQ(sample_asked(sampler, row), 1);
  sampler.accept(0);  // twice in the window, once subtracted
  sampler.accept(3);
  EXPECT_EQ(sample_asked(sampler, row), 1);
  sampler.accept(3);
  EXPECT_EQ(sample_asked(sampler, row), 1);  // 0 is still the window's oldest
  sampler.accept(3);
  EXPECT_EQ(sample_asked(sampler, row), 0);
}

TEST(SamplerTest, PenaltiesByHand) {
  SamplingParams params = greedy();
  params.frequency_penalty = 0.5F;
  Sampler frequency(params, 3, limits_of(false));
  for (int i = 0; i < 3; ++i) frequency.accept(0);
  EXPECT_EQ(sample_asked(frequency, {2, 0.6F, 0}), 1);  // 2 - 3 * 0.5 = 0.5
  EXPECT_EQ(sample_asked(frequency, {2, 0.4F, 0}), 0);
  params = greedy();
  params.repeat_penalty = 2;
  Sampler repeat(params, 3, limits_of(false));
  repeat.accept(0);
  EXPECT_EQ(sample_asked(repeat, {2, 1.1F, 0}), 1);  // 2 / 2
  EXPECT_EQ(sample_asked(repeat, {2, 0.9F, 0}), 0);
  EXPECT_EQ(sample_asked(repeat, {-1, -1.9F, -9}), 1);  // -1 * 2
  EXPECT_EQ(sample_asked(repeat, {-1, -2.1F, -9}), 0);
}

TEST(SamplerTest, BiasAddsAndMinusInfinityBans) {
  SamplingParams params = greedy();
  params.logit_bias = {{2, 5.0F}, {0, -kInf}};
  Sampler sampler(params, 4, limits_of(false));
  EXPECT_EQ(sample_asked(sampler, {9, 4, 0, 1}), 2);
  EXPECT_EQ(sample_asked(sampler, {9, 6, 0, 1}), 1);
  EXPECT_EQ(sample_asked(sampler, {9, 4, -2, -kInf}), 1);
  params = plain_draw(5);
  params.logit_bias = {{0, -kInf}, {3, -kInf}};
  EXPECT_EQ(frequencies(params, {9, 0, 0, 9}, 5000).count(0), 0U);
  EXPECT_EQ(frequencies(params, {9, 0, 0, 9}, 5000).count(3), 0U);
}

TEST(SamplerTest, RowsThatAreNotNumbers) {
  const float nan = std::nanf("");
  for (SamplingParams params : {greedy(), plain_draw(3), SamplingParams()}) {
    Sampler sampler(params, 4, limits_of(true));
    for (int i = 0; i < 50; ++i) {
      const int32_t token = sample_whole(sampler, {nan, 1, nan, 2});
      EXPECT_TRUE(token == 1 || token == 3) << token;
    }
    EXPECT_EQ(sample_whole(sampler, {nan, nan, nan, nan}), 0);
    EXPECT_EQ(sample_whole(sampler, {-kInf, -kInf, -kInf, -kInf}), 0);
    EXPECT_EQ(sample_whole(sampler, {-kInf, kInf, nan, 5}), 1);
  }
}

TEST(SamplerTest, TheSeedDecides) {
  std::mt19937 random(4);
  std::vector<std::vector<float>> rows;
  for (int i = 0; i < 64; ++i) rows.push_back(random_row(random, 0.5F));
  const auto text = [&](uint64_t seed) {
    Sampler sampler(plain_draw(seed), kVocab, limits_of(true));
    std::vector<int32_t> tokens;
    for (const auto& row : rows) tokens.push_back(sample_whole(sampler, row));
    return tokens;
  };
  EXPECT_EQ(text(1), text(1));
  EXPECT_NE(text(1), text(2));
  EXPECT_NE(text(0), text(1ULL << 40));
}

}  // namespace
}  // namespace spillway::testing

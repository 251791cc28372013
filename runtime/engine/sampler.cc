// See sampler.h.
#include "runtime/engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <utility>

#include "kernels/core/check.h"

namespace spillway {
namespace {

std::string must(const char* name, double value, const char* range) {
  char text[128];
  std::snprintf(text, sizeof(text), "%s is %g, must be %s", name, value, range);
  return text;
}

bool penalises(const SamplingParams& p) {
  return p.repeat_penalty != 1.0F || p.frequency_penalty != 0.0F || p.presence_penalty != 0.0F;
}

bool better(const cpu::Candidate& a, const cpu::Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

}  // namespace

std::string check_sampling(const SamplingParams& p, int64_t vocab_size, const StepLimits& limits) {
  if (!(p.temperature >= 0) || std::isinf(p.temperature)) {
    return must("temperature", p.temperature, "0 (greedy) or more");
  }
  if (p.top_k < 0) return must("top_k", p.top_k, "0 (all) or more");
  if (!(p.top_p > 0 && p.top_p <= 1)) return must("top_p", p.top_p, "in (0, 1]");
  if (!(p.min_p >= 0 && p.min_p < 1)) return must("min_p", p.min_p, "in [0, 1)");
  if (!(p.repeat_penalty > 0) || std::isinf(p.repeat_penalty)) {
    return must("repeat_penalty", p.repeat_penalty, "above 0");
  }
  if (!(std::fabs(p.frequency_penalty) <= 2)) {
    return must("frequency_penalty", p.frequency_penalty, "in [-2, 2]");
  }
  if (!(std::fabs(p.presence_penalty) <= 2)) {
    return must("presence_penalty", p.presence_penalty, "in [-2, 2]");
  }
  if (p.repeat_last_n < 0) return must("repeat_last_n", p.repeat_last_n, "0 or more");
  const int64_t changed =
      (penalises(p) ? p.repeat_last_n : 0) + static_cast<int64_t>(p.logit_bias.size());
  if (changed > limits.max_wanted) {
    return "repeat_last_n and logit_bias together touch " + std::to_string(changed) +
           " tokens, at most " + std::to_string(limits.max_wanted) + " are possible";
  }
  std::vector<int32_t> biased;
  for (const auto& [token, bias] : p.logit_bias) {
    if (std::find(biased.begin(), biased.end(), token) != biased.end()) {
      return "logit_bias names token " + std::to_string(token) + " twice";
    }
    biased.push_back(token);
    if (token < 0 || token >= vocab_size) {
      return "logit_bias names token " + std::to_string(token) + ", the vocabulary has " +
             std::to_string(vocab_size);
    }
    if (std::isnan(bias) || bias == std::numeric_limits<float>::infinity()) {
      return must("logit_bias", bias, "a number or -inf");
    }
  }
  if (limits.all_logits) return "";
  if (p.temperature > 0 && (p.top_k == 0 || p.top_k + changed > limits.max_candidates)) {
    return must("top_k", p.top_k, "smaller: this job keeps no room for whole rows of logits");
  }
  // Greedy: the best of those that are not changed must be among the candidates.
  if (p.temperature == 0 && 1 + changed > limits.max_candidates) {
    return "repeat_last_n and logit_bias together touch " + std::to_string(changed) +
           " tokens, at most " + std::to_string(limits.max_candidates - 1) +
           " are possible without whole rows of logits";
  }
  return "";
}

Sampler::Sampler(SamplingParams params, int64_t vocab_size, const StepLimits& limits)
    : params_(std::move(params)),
      all_logits_(limits.all_logits),
      max_candidates_(limits.max_candidates),
      random_(params_.seed) {
  std::sort(params_.logit_bias.begin(), params_.logit_bias.end());
  if (!penalises(params_)) params_.repeat_last_n = 0;
  window_.reserve(static_cast<size_t>(params_.repeat_last_n));
  counts_.reserve(static_cast<size_t>(params_.repeat_last_n) + 1);
  const auto most = static_cast<size_t>(all_logits_ ? vocab_size : max_candidates_);
  pool_.reserve(most + static_cast<size_t>(limits.max_wanted));
  weights_.reserve(pool_.capacity());
}

void Sampler::accept(int32_t token) {
  if (params_.repeat_last_n == 0) return;
  const auto at = [&](int32_t t) {
    return std::lower_bound(counts_.begin(), counts_.end(), std::make_pair(t, INT32_MIN));
  };
  if (window_.size() == static_cast<size_t>(params_.repeat_last_n)) {
    const auto old = at(window_[window_next_]);
    if (--old->second == 0) counts_.erase(old);
    window_[window_next_] = token;
    window_next_ = (window_next_ + 1) % window_.size();
  } else {
    window_.push_back(token);
  }
  const auto found = at(token);
  if (found != counts_.end() && found->first == token) {
    ++found->second;
  } else {
    counts_.insert(found, {token, 1});
  }
}

LogitRow Sampler::ask(int32_t row, std::vector<int32_t>& wanted) const {
  const size_t before = wanted.size();
  for (const auto& [token, count] : counts_) wanted.push_back(token);
  for (const auto& [token, bias] : params_.logit_bias) wanted.push_back(token);
  std::sort(wanted.begin() + static_cast<int64_t>(before), wanted.end());
  wanted.erase(std::unique(wanted.begin() + static_cast<int64_t>(before), wanted.end()),
               wanted.end());
  const auto n_wanted = static_cast<int32_t>(wanted.size() - before);
  // Changed tokens may leave the best top_k, so as many more must come.
  const int64_t best = (params_.temperature == 0 ? 1 : params_.top_k) + n_wanted;
  const bool whole = (params_.temperature > 0 && params_.top_k == 0) || best > max_candidates_;
  return {row, whole && all_logits_ ? 0 : static_cast<int32_t>(std::min(best, max_candidates_)),
          n_wanted};
}

float Sampler::adjusted(int32_t token, float logit) const {
  const auto bias =
      std::lower_bound(params_.logit_bias.begin(), params_.logit_bias.end(),
                       std::make_pair(token, -std::numeric_limits<float>::infinity()));
  if (bias != params_.logit_bias.end() && bias->first == token) logit += bias->second;
  const auto seen =
      std::lower_bound(counts_.begin(), counts_.end(), std::make_pair(token, INT32_MIN));
  if (seen != counts_.end() && seen->first == token) {
    logit = logit > 0 ? logit / params_.repeat_penalty : logit * params_.repeat_penalty;
    logit -= static_cast<float>(seen->second) * params_.frequency_penalty;
    logit -= params_.presence_penalty;
  }
  return logit;
}

void Sampler::gather(const RowResult& row, std::span<const int32_t> wanted) {
  pool_.clear();
  if (!row.whole.empty()) {
    for (size_t i = 0; i < row.whole.size(); ++i) {
      const auto token = static_cast<int32_t>(i);
      pool_.push_back({token, adjusted(token, row.whole[i])});
    }
  } else {
    for (const cpu::Candidate& candidate : row.candidates) {
      if (!std::binary_search(wanted.begin(), wanted.end(), candidate.token)) {
        pool_.push_back(candidate);
      }
    }
    for (size_t i = 0; i < wanted.size(); ++i) {
      pool_.push_back({wanted[i], adjusted(wanted[i], row.wanted[i])});
    }
  }
  std::erase_if(pool_, [](const cpu::Candidate& c) { return std::isnan(c.logit); });
}

int32_t Sampler::sample(const RowResult& row, std::span<const int32_t> wanted) {
  gather(row, wanted);
  // All logits NaN: the engine has thrown before; a bias of -inf on infinite ones gets here.
  if (pool_.empty()) return 0;
  if (params_.temperature == 0) {
    return std::min_element(pool_.begin(), pool_.end(), better)->token;
  }
  const size_t keep =
      params_.top_k > 0 ? std::min(pool_.size(), static_cast<size_t>(params_.top_k)) : pool_.size();
  std::partial_sort(pool_.begin(), pool_.begin() + static_cast<int64_t>(keep), pool_.end(), better);
  pool_.resize(keep);
  return draw();
}

int32_t Sampler::draw() {
  // Weights before temperature, relative to the best: what top-p and min-p look at.
  const double best = pool_.front().logit;
  if (std::isinf(best)) return pool_.front().token;
  double sum = 0;
  weights_.clear();
  for (const cpu::Candidate& candidate : pool_) {
    weights_.push_back(std::exp(static_cast<double>(candidate.logit) - best));
    sum += weights_.back();
  }
  size_t keep = pool_.size();
  if (params_.top_p < 1) {
    double cumulative = 0;
    for (size_t i = 0; i < keep; ++i) {
      cumulative += weights_[i];
      if (cumulative >= static_cast<double>(params_.top_p) * sum) keep = i + 1;
    }
  }
  while (keep > 1 && weights_[keep - 1] < static_cast<double>(params_.min_p)) --keep;
  double total = 0;
  for (size_t i = 0; i < keep; ++i) {
    weights_[i] = std::exp((static_cast<double>(pool_[i].logit) - best) /
                           static_cast<double>(params_.temperature));
    total += weights_[i];
  }
  // Banned tokens weigh nothing: the draw below must not end on one when rounding leaves a rest.
  while (keep > 1 && weights_[keep - 1] == 0) --keep;
  double left = uniform() * total;
  for (size_t i = 0; i < keep; ++i) {
    left -= weights_[i];
    if (left < 0) return pool_[i].token;
  }
  return pool_[keep - 1].token;
}

double Sampler::uniform() { return static_cast<double>(random_() >> 11) * 0x1.0p-53; }

}  // namespace spillway

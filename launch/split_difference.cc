// See split_difference.h.
#include "launch/split_difference.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace spillway {

void Difference::add_row(std::span<const float> reference, std::span<const float> row,
                         int64_t n_rows) {
  for (size_t t = 0; t < row.size(); ++t) {
    const double gap = std::fabs(static_cast<double>(row[t]) - static_cast<double>(reference[t]));
    // A NaN on either side must not pass for equal.
    if (!(gap <= max_logit)) max_logit = std::isnan(gap) ? HUGE_VAL : gap;
  }
  same_bits = same_bits && std::memcmp(row.data(), reference.data(), row.size_bytes()) == 0;
  kl += kl_divergence(reference, row) / static_cast<double>(n_rows);
}

void Difference::merge(const Difference& other) {
  max_logit = std::max(max_logit, other.max_logit);
  kl = std::max(kl, other.kl);
  greedy_prefix = std::min(greedy_prefix, other.greedy_prefix);
  same_bits = same_bits && other.same_bits;
}

double kl_divergence(std::span<const float> p, std::span<const float> q) {
  const auto log_sum = [](std::span<const float> row) {
    const double most = *std::max_element(row.begin(), row.end());
    double sum = 0;
    for (const float x : row) sum += std::exp(static_cast<double>(x) - most);
    return most + std::log(sum);
  };
  const double log_p = log_sum(p);
  const double log_q = log_sum(q);
  double kl = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    const double lp = static_cast<double>(p[i]) - log_p;
    kl += std::exp(lp) * (lp - (static_cast<double>(q[i]) - log_q));
  }
  return std::max(0.0, kl);
}

bool same_bits(const Rows& a, const Rows& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) {
    return x.size() == y.size() && std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) == 0;
  });
}

bool passes_on_gpus(const Difference& difference, bool repeats_bits, double tolerance) {
  return repeats_bits && std::isfinite(difference.max_logit) && difference.kl <= kMostGpuKl &&
         difference.max_logit <= tolerance;
}

}  // namespace spillway

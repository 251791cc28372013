// See perplexity_windows.h.
#include "launch/perplexity_windows.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/check.h"

namespace spillway {

std::vector<Window> perplexity_windows(int64_t n_tokens, int64_t context, int64_t stride,
                                       int64_t most) {
  CHECK_GE(context, 3);
  CHECK_GE(stride, 0);
  CHECK_LE(stride, context);
  const int64_t distance = stride > 0 ? stride : context;
  std::vector<Window> windows;
  for (int64_t begin = 0; begin + context <= n_tokens; begin += distance) {
    if (most > 0 && static_cast<int64_t>(windows.size()) == most) break;
    int64_t first_scored = context / 2;
    if (stride > 0) first_scored = begin == 0 ? 0 : std::max<int64_t>(0, context - 1 - stride);
    windows.push_back({begin, first_scored});
  }
  return windows;
}

std::vector<WindowStep> window_steps(const Window& window, int64_t context, int64_t max_rows,
                                     int64_t max_logit_rows) {
  CHECK_GE(max_rows, 1);
  CHECK_GE(max_logit_rows, 1);
  std::vector<WindowStep> steps;
  const int64_t end = context - 1;
  for (int64_t at = 0; at < end;) {
    const int64_t scored_from = std::max(at, window.first_scored);
    const int64_t to = std::min({end, at + max_rows, scored_from + max_logit_rows});
    steps.push_back({to - at, std::max<int64_t>(0, to - scored_from)});
    at = to;
  }
  return steps;
}

double token_nll(std::span<const float> logits, int32_t target) {
  CHECK_GE(target, 0);
  CHECK_LT(static_cast<size_t>(target), logits.size());
  const double most = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - most);
  return std::log(sum) - (static_cast<double>(logits[static_cast<size_t>(target)]) - most);
}

void NllSum::add(double nll) {
  ++count_;
  const double before = nll - mean_;
  mean_ += before / static_cast<double>(count_);
  squares_ += before * (nll - mean_);
}

double NllSum::perplexity() const { return std::exp(mean_); }

double NllSum::error() const {
  if (count_ < 2) return 0;
  const auto n = static_cast<double>(count_);
  return std::sqrt(squares_ / n / (n - 1)) * perplexity();
}

}  // namespace spillway

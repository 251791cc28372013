// See forward_loop.h.
#include "launch/forward_loop.h"

#include <algorithm>

#include "kernels/core/check.h"

namespace spillway {

const StepResult& ForwardLoop::feed(std::span<const int32_t> tokens, int32_t n_candidates,
                                    int64_t chunk_rows) {
  const int64_t most =
      chunk_rows > 0 ? std::min(chunk_rows, plan_.limits.max_rows) : plan_.limits.max_rows;
  const StepResult* result = nullptr;
  CHECK(!tokens.empty());
  while (!tokens.empty()) {
    const auto now = tokens.first(std::min(tokens.size(), static_cast<size_t>(most)));
    tokens = tokens.subspan(now.size());
    const bool wanted = tokens.empty() && n_candidates >= 0;
    result = &run(now, wanted ? 1 : 0, n_candidates);
  }
  return *result;
}

const StepResult& ForwardLoop::step(std::span<const int32_t> tokens, int64_t n_logit_rows) {
  CHECK(!tokens.empty());
  return run(tokens, n_logit_rows, 0);
}

const StepResult& ForwardLoop::run(std::span<const int32_t> tokens, int64_t n_logit_rows,
                                   int32_t n_candidates) {
  const auto n = static_cast<int64_t>(tokens.size());
  CHECK_LE(n_logit_rows, std::min(n, plan_.limits.max_logit_rows));
  const int64_t end = position_ + n;
  CHECK_LE(end, plan_.kv.context);
  batch_.clear();
  batch_.number = step_++;
  batch_.tokens.assign(tokens.begin(), tokens.end());
  const int64_t n_pages = div_up(end, plan_.kv.page_tokens);
  for (int64_t page = 0; page < n_pages; ++page) {
    batch_.pages.push_back(static_cast<int32_t>(page));
  }
  batch_.sequences.push_back(
      {0, static_cast<int32_t>(n), static_cast<int32_t>(n_pages), static_cast<int32_t>(position_)});
  for (int64_t row = n - n_logit_rows; row < n; ++row) {
    batch_.logit_rows.push_back({static_cast<int32_t>(row), n_candidates, 0});
  }
  position_ = end;
  return engine_.forward(batch_);
}

}  // namespace spillway

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
    const auto n = std::min(tokens.size(), static_cast<size_t>(most));
    batch_.clear();
    batch_.number = step_++;
    batch_.tokens.assign(tokens.begin(), tokens.begin() + static_cast<int64_t>(n));
    const auto end = position_ + static_cast<int64_t>(n);
    CHECK_LE(end, plan_.kv.context);
    const int64_t n_pages = div_up(end, plan_.kv.page_tokens);
    for (int64_t page = 0; page < n_pages; ++page) {
      batch_.pages.push_back(static_cast<int32_t>(page));
    }
    batch_.sequences.push_back({0, static_cast<int32_t>(n), static_cast<int32_t>(n_pages),
                                static_cast<int32_t>(position_)});
    tokens = tokens.subspan(n);
    if (tokens.empty() && n_candidates >= 0) {
      batch_.logit_rows.push_back({static_cast<int32_t>(n) - 1, n_candidates, 0});
    }
    result = &engine_.forward(batch_);
    position_ = end;
  }
  return *result;
}

}  // namespace spillway

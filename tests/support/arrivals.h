// Small plans, prompts and requests for tests of the scheduler, and the text that each request must
// get from PagedEcho whatever runs beside it.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "kernels/core/int_math.h"
#include "parallel/plan.h"
#include "tests/support/paged_echo.h"

namespace spillway::testing {

inline Plan plan_of(int64_t max_rows, int64_t max_sequences, int64_t context, int64_t n_pages = 0) {
  Plan plan;
  plan.stages.resize(1);
  plan.limits.max_rows = max_rows;
  plan.limits.max_sequences = max_sequences;
  plan.limits.max_logit_rows = max_sequences;
  plan.limits.max_candidates = 8;
  plan.limits.max_wanted = 4;
  plan.kv.page_tokens = 4;
  plan.kv.context = context;
  plan.kv.n_pages = n_pages > 0 ? n_pages : div_up(context, 4) + max_sequences;
  return plan;
}

inline std::vector<int32_t> prompt_of(int64_t n, int32_t first = 0) {
  std::vector<int32_t> prompt(static_cast<size_t>(n));
  std::iota(prompt.begin(), prompt.end(), first);
  return prompt;
}

struct Arrival {
  std::vector<int32_t> prompt;
  int64_t most = 0;
  EchoSink sink;
};

inline void expect_text_of(const Arrival& arrival, int64_t context) {
  ASSERT_TRUE(arrival.sink.finished);
  const auto n_prompt = static_cast<int64_t>(arrival.prompt.size());
  int64_t n = std::min(arrival.most, context - n_prompt);
  if (arrival.sink.cancel_at >= 0) n = std::min(n, arrival.sink.cancel_at);
  EXPECT_EQ(arrival.sink.tokens, echo_text(arrival.prompt, n));
  FinishReason reason = FinishReason::kLength;
  if (n < arrival.most) reason = FinishReason::kContext;
  if (n == arrival.sink.cancel_at) reason = FinishReason::kCancelled;
  EXPECT_EQ(arrival.sink.reason, reason);
}

}  // namespace spillway::testing

// What the sampler's tests share: limits, and the two simplest ways to draw.
#pragma once

#include <cstdint>
#include <limits>

#include "runtime/engine/sampler.h"

namespace spillway::testing {

inline constexpr float kInf = std::numeric_limits<float>::infinity();
inline constexpr int32_t kVocab = 50;

inline StepLimits limits_of(bool all_logits) {
  StepLimits limits;
  limits.max_candidates = 48;
  limits.max_wanted = 24;
  limits.all_logits = all_logits;
  return limits;
}

inline SamplingParams greedy() {
  SamplingParams params;
  params.temperature = 0;
  return params;
}

// Everything off: draws by the softmax of the row.
inline SamplingParams plain_draw(uint64_t seed) {
  SamplingParams params;
  params.temperature = 1;
  params.top_k = 0;
  params.top_p = 1;
  params.min_p = 0;
  params.seed = seed;
  return params;
}

}  // namespace spillway::testing

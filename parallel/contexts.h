// Contexts: the longest context that some candidate holds. Called by planner.cc. Pure.
#pragma once

#include <optional>

#include "parallel/layout.h"

namespace spillway {

struct LongestContext {
  int64_t tokens = 0;               // 0: none fits
  std::optional<Candidate> holder;  // whose cuts were moved for it
};

// In whole pages up to `most`, for which some plan fits.
LongestContext longest_context(const PlanTask& task, int64_t most);

}  // namespace spillway

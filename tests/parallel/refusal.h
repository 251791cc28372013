// What the planner says when it refuses, for the tests of plans with GPUs.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "parallel/planner.h"

namespace spillway::testing {

// The error's text, or "it was planned".
inline std::string refusal(const ModelSpec& model, const ClusterSpec& cluster,
                           const PlanRequest& request) {
  try {
    make_plan(model, cluster, request);
  } catch (const Error& error) {
    return error.what();
  }
  return "it was planned";
}

inline void expect_says(const std::string& text, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) {
    EXPECT_NE(text.find(part), std::string::npos) << "\"" << part << "\" in: " << text;
  }
}

}  // namespace spillway::testing

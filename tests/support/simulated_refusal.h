// For tests of simulated faults: none outlives its test; what a body throws, as words.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "kernels/core/error.h"
#include "kernels/core/simulated_fault.h"

namespace spillway::testing {

class SimulatedRefusal : public ::testing::Test {
 protected:
  void TearDown() override { simulate_fault(""); }

  static std::string refusal(const std::function<void()>& body) {
    try {
      body();
    } catch (const Error& error) {
      return error.what();
    }
    return "nothing was refused";
  }
};

}  // namespace spillway::testing

// RopeFrequencies against the formulas of the papers, and against numbers worked out by hand.
#include "runtime/stage/rope_table.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/naive_llama.h"

namespace spillway::testing {
namespace {

RopeSpec plain(int64_t n_rot, double base) {
  RopeSpec rope;
  rope.n_rot = n_rot;
  rope.base = base;
  return rope;
}

TEST(RopeTableTest, PlainAnglesByHand) {
  const RopeFrequencies table(plain(8, 10000));
  ASSERT_EQ(table.angles().size(), 4U);
  EXPECT_DOUBLE_EQ(table.angles()[0], 1.0);
  EXPECT_NEAR(table.angles()[1], 0.1, 1e-15);
  EXPECT_NEAR(table.angles()[2], 0.01, 1e-16);
  EXPECT_NEAR(table.angles()[3], 0.001, 1e-17);
  EXPECT_EQ(table.magnitude(), 1.0);
}

TEST(RopeTableTest, LinearDividesPositions) {
  RopeSpec rope = plain(8, 10000);
  rope.scaling = RopeScaling::kLinear;
  rope.factor = 4;
  const RopeFrequencies table(rope);
  EXPECT_DOUBLE_EQ(table.angles()[0], 0.25);
  EXPECT_NEAR(table.angles()[1], 0.025, 1e-16);
  EXPECT_EQ(table.magnitude(), 1.0);
}

TEST(RopeTableTest, DivisorsDivide) {
  RopeSpec rope = plain(4, 100);
  rope.frequency_divisors = {1.0F, 8.0F};
  const RopeFrequencies table(rope);
  EXPECT_DOUBLE_EQ(table.angles()[0], 1.0);
  EXPECT_NEAR(table.angles()[1], 0.1 / 8, 1e-17);
}

TEST(RopeTableTest, YarnByHand) {
  // Base 10000, 64 values, trained on 2048: 32 turns lie at pair 8.05, one turn at pair 20.1 of 32.
  RopeSpec rope = plain(64, 10000);
  rope.scaling = RopeScaling::kYarn;
  rope.factor = 8;
  rope.original_context = 2048;
  const RopeFrequencies table(rope);
  const auto theta = [](int i) { return std::pow(10000.0, -i / 32.0); };
  for (const int i : {0, 4, 8}) EXPECT_NEAR(table.angles()[i], theta(i), 1e-14) << i;
  for (const int i : {21, 25, 31}) EXPECT_NEAR(table.angles()[i], theta(i) / 8, 1e-16) << i;
  const double ramp = 6.0 / 13.0;  // pair 14 between 8 and 21
  EXPECT_NEAR(table.angles()[14], theta(14) * (1 - ramp) + theta(14) / 8 * ramp, 1e-15);
  EXPECT_NEAR(table.magnitude(), 1 + 0.1 * std::log(8.0), 1e-12);
}

TEST(RopeTableTest, YarnParametersCount) {
  RopeSpec rope = plain(64, 10000);
  rope.scaling = RopeScaling::kYarn;
  rope.factor = 8;
  rope.original_context = 2048;
  const RopeFrequencies table(rope);
  rope.yarn_attention = 0.5;
  EXPECT_NEAR(RopeFrequencies(rope).magnitude(), table.magnitude() / 2, 1e-12);
  rope.yarn_attention = 1;
  rope.yarn_extrapolation = 0;  // interpolate everything, leave lengths
  const RopeFrequencies interpolated(rope);
  EXPECT_NEAR(interpolated.angles()[0], 0.125, 1e-15);
  EXPECT_EQ(interpolated.magnitude(), 1.0);
  rope.yarn_extrapolation = 1;
  rope.yarn_beta_fast = 4;  // a later start of the ramp: more pairs keep their angle
  EXPECT_GT(RopeFrequencies(rope).angles()[10], table.angles()[10]);
}

TEST(RopeTableTest, AgreesWithTheReference) {
  for (const char* scaling : {"", "linear", "yarn"}) {
    for (const int64_t n_rot : {2, 16, 64, 128}) {
      SCOPED_TRACE(std::string(scaling) + " " + std::to_string(n_rot));
      TinyOptions options;
      options.n_layers = 0;
      options.head_dim = n_rot;
      options.rope_base = 50000;
      options.rope_scaling = scaling;
      options.rope_factor = *scaling == 0 ? 1 : 3;
      options.rope_original_context = 4096;
      const TinyModel model(options);
      const NaiveLlama reference(model);
      RopeSpec rope = plain(n_rot, 50000);
      rope.factor = options.rope_factor;
      rope.original_context = 4096;
      if (options.rope_scaling == "linear") rope.scaling = RopeScaling::kLinear;
      if (options.rope_scaling == "yarn") rope.scaling = RopeScaling::kYarn;
      const RopeFrequencies table(rope);
      for (int64_t i = 0; i < n_rot / 2; ++i) {
        const double expected = reference.angle(i, 1);
        EXPECT_NEAR(table.angles()[static_cast<size_t>(i)], expected, 1e-13 * expected) << i;
      }
      EXPECT_NEAR(table.magnitude(), reference.stretch(), 1e-12);
    }
  }
}

TEST(RopeTableTest, FillsAnyPositions) {
  RopeSpec rope = plain(6, 10000);
  rope.scaling = RopeScaling::kYarn;
  rope.factor = 2;
  rope.original_context = 100;
  const RopeFrequencies table(rope);
  const std::vector<int32_t> positions = {0, 7, 3, 1000000, 3};
  std::vector<float> cos_memory(5 * 4, -9);
  std::vector<float> sin_memory(5 * 4, -9);
  table.fill(positions, {cos_memory.data(), 5, 3, 4}, {sin_memory.data(), 5, 3, 4});
  for (size_t r = 0; r < 5; ++r) {
    for (size_t i = 0; i < 3; ++i) {
      const double angle = positions[r] * table.angles()[i];
      EXPECT_NEAR(cos_memory[r * 4 + i], std::cos(angle) * table.magnitude(), 1e-7);
      EXPECT_NEAR(sin_memory[r * 4 + i], std::sin(angle) * table.magnitude(), 1e-7);
    }
    EXPECT_EQ(cos_memory[r * 4 + 3], -9) << "wrote past the row";
  }
}

TEST(RopeTableDeathTest, WrongShapes) {
  const RopeFrequencies table(plain(8, 10000));
  std::vector<float> memory(64);
  const std::vector<int32_t> positions = {1, 2};
  EXPECT_DEATH(table.fill(positions, {memory.data(), 3, 4}, {memory.data(), 2, 4}), "3 vs 2");
  EXPECT_DEATH(table.fill(positions, {memory.data(), 2, 5}, {memory.data(), 2, 4}), "5 vs 4");
}

}  // namespace
}  // namespace spillway::testing

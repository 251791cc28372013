// The quantisers: equal to the reference ones where there are any, as exact as llama.cpp's
// elsewhere (tests/golden/quant/make_quantised), and calm with values that do not fit.
#include "kernels/cpu/quantize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>

#include "kernels/cpu/block_assemble.h"
#include "tests/support/kernel_fixtures.h"

namespace spillway {
namespace {

using enum QuantType;
using kernel_test::available_isas;

std::vector<std::byte> from_hex(const std::string& text) {
  std::vector<std::byte> bytes;
  for (size_t i = 0; i + 1 < text.size(); i += 2) {
    bytes.push_back(static_cast<std::byte>(std::stoi(text.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

std::vector<float> floats_from_hex(const std::string& text) {
  const std::vector<std::byte> bytes = from_hex(text);
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

nlohmann::json goldens() {
  std::ifstream file(SPILLWAY_SOURCE_DIR "/tests/golden/quant/quantised.json");
  EXPECT_TRUE(file.good());
  return nlohmann::json::parse(file);
}

std::vector<std::byte> quantized(QuantType type, const std::vector<float>& x, int threads = 1,
                                 cpu::Isa isa = cpu::best_isa()) {
  ThreadPool pool(threads);
  std::vector<std::byte> out(static_cast<size_t>(quant_bytes(type, static_cast<int64_t>(x.size()))),
                             std::byte{0xaa});
  cpu::quantize({&pool, isa}, type, x, out.data());
  return out;
}

std::vector<float> round_trip(QuantType type, const std::vector<float>& x) {
  const std::vector<std::byte> blocks = quantized(type, x);
  std::vector<float> back(x.size());
  cpu::dequantize(type, blocks.data(), back);
  return back;
}

double rms(const std::vector<float>& x) {
  double sum = 0;
  for (const float value : x) sum += static_cast<double>(value) * value;
  return std::sqrt(sum / static_cast<double>(x.size()));
}

double relative_error(const std::vector<float>& x, const std::vector<float>& back) {
  std::vector<float> error(x.size());
  for (size_t i = 0; i < x.size(); ++i) error[i] = back[i] - x[i];
  return rms(error) / rms(x);
}

std::vector<QuantType> all_types() {
  std::vector<QuantType> types;
  for (const QuantType type : kernel_test::computable_types()) {
    if (cpu::can_quantize(type)) types.push_back(type);
  }
  return types;
}

TEST(QuantizeTest, WritesEveryTypeOfTheTable) {
  EXPECT_EQ(all_types().size(), 16u);
  EXPECT_FALSE(cpu::can_quantize(kIQ2_XXS));
  EXPECT_FALSE(cpu::can_quantize(kI32));
}

TEST(QuantizeTest, EqualsTheReferenceBitForBit) {
  const nlohmann::json golden = goldens().at("blocks");
  const std::vector<float> values = floats_from_hex(golden.at("values"));
  ASSERT_GE(values.size(), 600u);
  for (const QuantType type : {kF16, kBF16, kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ8_0, kMXFP4}) {
    SCOPED_TRACE(quant_info(type).name);
    const std::vector<std::byte> expected = from_hex(golden.at(quant_info(type).name));
    const std::vector<std::byte> found = quantized(type, values);
    ASSERT_EQ(found.size(), expected.size());
    const auto block = static_cast<size_t>(quant_bytes(type, 32));
    for (size_t i = 0; i < found.size(); ++i) {
      ASSERT_EQ(static_cast<int>(found[i]), static_cast<int>(expected[i]))
          << "case " << i / block << ", byte " << i % block;
    }
  }
}

// Errors of llama.cpp's own quantisers on the same values; the searches here leave less.
TEST(QuantizeTest, SearchedTypesAreMoreExactThanLlamaCpp) {
  const nlohmann::json golden = goldens().at("rms_error");
  const std::vector<float> values = floats_from_hex(golden.at("values"));
  for (const QuantType type : {kQ2_K, kQ3_K, kQ4_K, kQ5_K, kQ6_K, kIQ4_NL, kIQ4_XS}) {
    SCOPED_TRACE(quant_info(type).name);
    const double theirs = golden.at(quant_info(type).name);
    EXPECT_LT(relative_error(values, round_trip(type, values)), theirs);
  }
}

// Uniform values fill the codes evenly: an error of a step's size over sqrt(12), and a little for
// scales that are rounded themselves. Bounds are about 1.2 times what was measured.
TEST(QuantizeTest, RoundTripsStayWithinTheTypesBounds) {
  std::mt19937 random(3);
  std::uniform_real_distribution<float> uniform(-0.1f, 0.1f);
  std::vector<float> x(64 * 256);
  for (float& value : x) value = uniform(random);
  const std::pair<QuantType, double> bounds[] = {
      {kF32, 0},        {kF16, 3e-4},   {kBF16, 2.2e-3}, {kQ8_0, 5.5e-3},
      {kQ6_K, 0.021},   {kQ5_K, 0.036}, {kQ5_1, 0.035},  {kQ5_0, 0.039},
      {kQ4_K, 0.072},   {kQ4_1, 0.072}, {kQ4_0, 0.082},  {kIQ4_NL, 0.085},
      {kIQ4_XS, 0.085}, {kQ3_K, 0.16},  {kQ2_K, 0.31},   {kMXFP4, 0.15}};
  for (const auto& [type, bound] : bounds) {
    SCOPED_TRACE(quant_info(type).name);
    EXPECT_LE(relative_error(x, round_trip(type, x)), bound);
  }
}

TEST(QuantizeTest, ThreadsAndInstructionSetsGiveTheSameBits) {
  std::mt19937 random(5);
  for (const QuantType type : all_types()) {
    SCOPED_TRACE(quant_info(type).name);
    // 9 blocks of 256: the last batch of sixteen sub-blocks is half full.
    const std::vector<float> x = kernel_test::random_floats(random, 9 * 256, 0.03f);
    const std::vector<std::byte> alone = quantized(type, x, 1, cpu::Isa::kScalar);
    for (const cpu::Isa isa : available_isas()) {
      for (const int threads : {1, 2, 5}) EXPECT_EQ(quantized(type, x, threads, isa), alone);
    }
  }
}

TEST(QuantizeTest, ABlockDoesNotDependOnItsNeighbours) {
  std::mt19937 random(6);
  for (const QuantType type : all_types()) {
    SCOPED_TRACE(quant_info(type).name);
    const std::vector<float> x = kernel_test::random_floats(random, 4 * 256, 0.03f);
    const std::vector<std::byte> together = quantized(type, x);
    const std::vector<std::byte> alone =
        quantized(type, std::vector<float>(x.begin() + 256, x.begin() + 512));
    const size_t bytes = alone.size();
    EXPECT_TRUE(std::equal(alone.begin(), alone.end(), together.begin() + bytes));
  }
}

TEST(QuantizeTest, ZerosStayZeros) {
  for (const QuantType type : all_types()) {
    SCOPED_TRACE(quant_info(type).name);
    for (const float value : round_trip(type, std::vector<float>(512, 0.0f))) {
      ASSERT_EQ(value, 0.0f);
    }
  }
}

TEST(QuantizeTest, ConstantBlocksAreKept) {
  for (const QuantType type : all_types()) {
    for (const float constant : {0.5f, -0.5f, 0.013f, -0.013f}) {
      SCOPED_TRACE(std::string(quant_info(type).name) + " " + std::to_string(constant));
      // Half a step of MXFP4 (1.5 to 2 times a power of two) is 1/6 of the value; elsewhere only
      // the scales are rounded.
      const double bound = type == kMXFP4 ? 0.17 : type == kF32 ? 0 : 0.01;
      for (const float value : round_trip(type, std::vector<float>(512, constant))) {
        ASSERT_NEAR(value, constant, std::fabs(constant) * bound);
      }
    }
  }
}

TEST(QuantizeTest, AnOutlierIsKeptAndDoesNotBreakTheOtherBlocks) {
  std::mt19937 random(8);
  for (const QuantType type : all_types()) {
    SCOPED_TRACE(quant_info(type).name);
    std::vector<float> x = kernel_test::random_floats(random, 512, 0.02f);
    x[100] = 40.0f;
    const std::vector<float> back = round_trip(type, x);
    EXPECT_NEAR(back[100], 40.0f, type == kMXFP4 ? 8.0f : 40.0f * 0.07f);
    const std::vector<float> rest(x.begin() + 256, x.end());
    const std::vector<float> rest_back(back.begin() + 256, back.end());
    EXPECT_LT(relative_error(rest, rest_back), 0.4);
  }
}

// Nothing that a block holds may be infinite or NaN, whatever finite values it was made from.
TEST(QuantizeTest, TinyAndHugeValuesGiveFiniteBlocks) {
  std::mt19937 random(9);
  for (const QuantType type : all_types()) {
    if (type == kBF16) continue;  // has the range of the floats themselves, and rounds to infinity
    for (const float spread : {1e-44f, 1e-39f, 1e-30f, 1e-10f, 1e-7f, 1e5f, 1e10f, 1e30f, 3e37f}) {
      SCOPED_TRACE(std::string(quant_info(type).name) + " " + std::to_string(std::log10(spread)));
      const std::vector<float> x = kernel_test::random_floats(random, 512, spread);
      for (const float value : round_trip(type, x)) {
        ASSERT_TRUE(std::isfinite(value));
        ASSERT_LE(std::fabs(value), 1e38f * 4);
      }
    }
  }
}

TEST(QuantizeTest, LargestValuesAreKept) {
  for (const QuantType type : all_types()) {
    SCOPED_TRACE(quant_info(type).name);
    const float largest = std::min(cpu::largest_value(type), 1e30f);
    std::vector<float> x(512, 0.0f);
    x[3] = largest;
    x[300] = -largest;
    const std::vector<float> back = round_trip(type, x);
    EXPECT_NEAR(back[3] / largest, 1.0f, type == kMXFP4 ? 0.34f : 0.07f);
    EXPECT_NEAR(back[300] / largest, -1.0f, type == kMXFP4 ? 0.34f : 0.07f);
  }
}

TEST(QuantizeTest, FindsTheFirstValueThatDoesNotFit) {
  ThreadPool pool(3);
  const cpu::Exec exec{&pool, cpu::best_isa()};
  constexpr float kNone = std::numeric_limits<float>::infinity();
  std::vector<float> x(100'000, 1.0f);
  EXPECT_EQ(cpu::first_unfit(exec, x, kNone), -1);
  x[77'777] = std::nanf("");
  EXPECT_EQ(cpu::first_unfit(exec, x, kNone), 77'777);
  x[51'234] = -std::numeric_limits<float>::infinity();
  EXPECT_EQ(cpu::first_unfit(exec, x, kNone), 51'234);
  x[50'000] = 65'505.0f;
  EXPECT_EQ(cpu::first_unfit(exec, x, kNone), 51'234);
  EXPECT_EQ(cpu::first_unfit(exec, x, 65'504.0f), 50'000);
  EXPECT_EQ(cpu::first_unfit(exec, {}, kNone), -1);
}

// take_apart has goldens of its own; put_together must give the file's bytes back.
TEST(BlockAssembleTest, IsTheInverseOfTakingApart) {
  std::mt19937 random(10);
  for (const QuantType type : all_types()) {
    dispatch(type, [&](auto tag) {
      using Traits = typename decltype(tag)::Traits;
      // The types that are read only are not put together.
      if constexpr (requires(typename Traits::Block b) { cpu::put_together({}, b); }) {
        SCOPED_TRACE(quant_info(type).name);
        for (int i = 0; i < 50; ++i) {
          const std::vector<std::byte> file =
              kernel_test::random_file_rows(random, type, 1, Traits::kBlock);
          typename Traits::Block block;
          std::memcpy(&block, file.data(), sizeof(block));
          cpu::BlockParts parts;
          cpu::take_apart(block, parts);
          typename Traits::Block again;
          std::memset(&again, 0xaa, sizeof(again));
          cpu::put_together(parts, again);
          ASSERT_EQ(std::memcmp(&again, &block, sizeof(block)), 0);
        }
      }
    });
  }
}

TEST(QuantizeDeathTest, MisuseIsABug) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(quantized(kQ4_K, std::vector<float>(255)), "CHECK failed");
  EXPECT_DEATH(quantized(kIQ2_XXS, std::vector<float>(256)), "CHECK failed");
}

}  // namespace
}  // namespace spillway

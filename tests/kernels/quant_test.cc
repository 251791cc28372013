// Facts of the numeric types, the half conversions and the dequantisers.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/support/kernel_fixtures.h"

namespace spillway {
namespace {

TEST(QuantTest, NumbersNamesAndSizes) {
  int known = 0;
  for (uint32_t number = 0; number < 64; ++number) {
    const auto type = quant_type_from_file(number);
    if (!type) continue;
    ++known;
    EXPECT_EQ(static_cast<uint32_t>(*type), number);
    const QuantInfo& info = quant_info(*type);
    EXPECT_EQ(info.type, *type);
    EXPECT_EQ(quant_type_from_name(info.name), *type);
    EXPECT_EQ(quant_bytes(*type, 0), 0);
    EXPECT_EQ(quant_bytes(*type, 3 * info.block_elements), 3 * info.block_bytes);
  }
  EXPECT_EQ(known, 32);
  EXPECT_EQ(quant_type_from_name("q4_k"), QuantType::kQ4_K);
  EXPECT_EQ(quant_type_from_name("Q8_0"), QuantType::kQ8_0);
  EXPECT_EQ(quant_type_from_name("bf16"), QuantType::kBF16);
}

TEST(QuantTest, UnknownTypesAreNothing) {
  for (const uint32_t number : {4u, 5u, 31u, 33u, 36u, 38u, 40u, 1000u, 0xffffffffu}) {
    EXPECT_FALSE(quant_type_from_file(number)) << number;
  }
  for (const char* name : {"", "Q", "Q4", "Q4_0 ", "q4_00", "F8"}) {
    EXPECT_FALSE(quant_type_from_name(name)) << name;
  }
}

TEST(QuantTest, OnlyWhatHasKernelsIsComputable) {
  size_t computable = 0;
  for (uint32_t number = 0; number < 64; ++number) {
    const auto type = quant_type_from_file(number);
    computable += type && quant_info(*type).computable ? 1 : 0;
  }
  EXPECT_EQ(computable, kernel_test::computable_types().size());
  for (const QuantType type : kernel_test::computable_types()) {
    EXPECT_TRUE(quant_info(type).computable);
    const QuantType seen = dispatch(type, [](auto tag) { return decltype(tag)::kType; });
    EXPECT_EQ(seen, type);
    const int64_t block = dispatch(type, [](auto tag) { return decltype(tag)::Traits::kBlock; });
    EXPECT_EQ(block, quant_info(type).block_elements);
  }
}

TEST(QuantDeathTest, MisuseIsABug) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(quant_bytes(QuantType::kQ8_0, 33), "CHECK failed");
  EXPECT_DEATH(quant_bytes(QuantType::kQ8_0, -32), "CHECK failed");
  EXPECT_DEATH(quant_info(static_cast<QuantType>(5)), "CHECK failed");
  EXPECT_DEATH(packed_bytes(QuantType::kIQ1_S, 16, 256), "computable: IQ1_S");
  EXPECT_DEATH(packed_bytes(QuantType::kQ4_0, 16, 40), "CHECK failed");
}

TEST(HalfTest, EveryHalfSurvivesTheRoundTrip) {
  for (uint32_t h = 0; h < 65536; ++h) {
    const auto half = static_cast<uint16_t>(h);
    const float value = f16_to_f32(half);
    const bool nan = (half & 0x7fff) > 0x7c00;
    EXPECT_EQ(std::isnan(value), nan) << h;
    EXPECT_EQ(f32_to_f16(value), nan ? half | 0x200 : half) << h;
  }
  EXPECT_EQ(f16_to_f32(0x3c00), 1.0f);
  EXPECT_EQ(f16_to_f32(0x7bff), 65504.0f);
  EXPECT_EQ(f16_to_f32(0x0001), 0x1p-24f);
  EXPECT_EQ(f16_to_f32(0xfc00), -std::numeric_limits<float>::infinity());
}

TEST(HalfTest, RoundsToNearestTiesToEven) {
  EXPECT_EQ(f32_to_f16(1.0f + 0x1p-11f), 0x3c00);      // tie, down to even
  EXPECT_EQ(f32_to_f16(1.0f + 3 * 0x1p-11f), 0x3c02);  // tie, up to even
  EXPECT_EQ(f32_to_f16(std::nextafterf(65520.0f, 0)), 0x7bff);
  EXPECT_EQ(f32_to_f16(65520.0f), 0x7c00);  // the first that is infinity
  EXPECT_EQ(f32_to_f16(0x1p-25f), 0x0000);  // tie between 0 and 2^-24
  EXPECT_EQ(f32_to_f16(std::nextafterf(0x1p-25f, 1)), 0x0001);
  EXPECT_EQ(f32_to_f16(std::nextafterf(0x1p-14f, 0)), 0x0400);  // subnormal rounds up to normal
  EXPECT_EQ(f32_to_f16(-0.0f), 0x8000);
}

// Every neighbourhood of every half, against the nearest by search in double.
TEST(HalfTest, NearestOfAllNeighbours) {
  for (uint32_t h = 0; h < 0x7bff; ++h) {
    const double low = static_cast<double>(f16_to_f32(static_cast<uint16_t>(h)));
    const double high = static_cast<double>(f16_to_f32(static_cast<uint16_t>(h + 1)));
    for (const double part : {0.2, 0.499, 0.5, 0.501, 0.9}) {
      const auto value = static_cast<float>(low + (high - low) * part);
      const double below = static_cast<double>(value) - low;
      const double above = high - static_cast<double>(value);
      uint32_t nearest = below < above ? h : h + 1;
      if (below == above) nearest = h % 2 == 0 ? h : h + 1;
      ASSERT_EQ(f32_to_f16(value), nearest) << h << " " << part;
    }
  }
}

// Blocks written by hand from the format's description.
TEST(DequantTest, HandMadeBlocks) {
  std::vector<float> out(32);
  const uint16_t half = f32_to_f16(0.5f), three = f32_to_f16(3.0f);

  BlockQ4_0 q40{half, {}};
  q40.qs[0] = 0xf3;  // value 0: 3, value 16: 15
  cpu::dequantize(QuantType::kQ4_0, reinterpret_cast<std::byte*>(&q40), out);
  EXPECT_EQ(out[0], 0.5f * (3 - 8));
  EXPECT_EQ(out[16], 0.5f * (15 - 8));
  EXPECT_EQ(out[1], 0.5f * (0 - 8));

  BlockQ4_1 q41{half, three, {}};
  q41.qs[15] = 0xa1;
  cpu::dequantize(QuantType::kQ4_1, reinterpret_cast<std::byte*>(&q41), out);
  EXPECT_EQ(out[15], 0.5f * 1 + 3);
  EXPECT_EQ(out[31], 0.5f * 10 + 3);
  EXPECT_EQ(out[0], 3.0f);

  BlockQ5_0 q50{half, {0x02, 0, 0, 0x80}, {}};
  q50.qs[1] = 0x07;
  cpu::dequantize(QuantType::kQ5_0, reinterpret_cast<std::byte*>(&q50), out);
  EXPECT_EQ(out[1], 0.5f * (7 + 16 - 16));
  EXPECT_EQ(out[31], 0.5f * (16 - 16));
  EXPECT_EQ(out[17], 0.5f * (0 - 16));

  BlockQ5_1 q51{half, three, {0, 0, 0x01, 0}, {}};
  q51.qs[0] = 0x90;
  cpu::dequantize(QuantType::kQ5_1, reinterpret_cast<std::byte*>(&q51), out);
  EXPECT_EQ(out[16], 0.5f * (9 + 16) + 3);
  EXPECT_EQ(out[0], 3.0f);

  BlockQ8_0 q80{half, {}};
  q80.qs[0] = -128;
  q80.qs[31] = 127;
  cpu::dequantize(QuantType::kQ8_0, reinterpret_cast<std::byte*>(&q80), out);
  EXPECT_EQ(out[0], -64.0f);
  EXPECT_EQ(out[31], 63.5f);
}

std::vector<uint8_t> from_hex(const std::string& text) {
  std::vector<uint8_t> bytes;
  for (size_t i = 0; i + 1 < text.size(); i += 2) {
    bytes.push_back(static_cast<uint8_t>(std::stoi(text.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

// Values of the reference dequantisers: tests/golden/quant/make_goldens.
TEST(DequantTest, EqualsTheReferenceBitForBit) {
  std::ifstream file(SPILLWAY_SOURCE_DIR "/tests/golden/quant/dequantised.json");
  ASSERT_TRUE(file.good());
  const nlohmann::json goldens = nlohmann::json::parse(file);
  for (const QuantType type : kernel_test::computable_types()) {
    SCOPED_TRACE(quant_info(type).name);
    const nlohmann::json& golden = goldens.at(quant_info(type).name);
    const std::vector<uint8_t> blocks = from_hex(golden.at("blocks"));
    const std::vector<uint8_t> values = from_hex(golden.at("values"));
    std::vector<float> out(values.size() / 4);
    ASSERT_EQ(quant_bytes(type, static_cast<int64_t>(out.size())),
              static_cast<int64_t>(blocks.size()));
    cpu::dequantize(type, reinterpret_cast<const std::byte*>(blocks.data()), out);
    for (size_t i = 0; i < out.size(); ++i) {
      const uint32_t expected = static_cast<uint32_t>(values[4 * i]) << 24 |
                                static_cast<uint32_t>(values[4 * i + 1]) << 16 |
                                static_cast<uint32_t>(values[4 * i + 2]) << 8 | values[4 * i + 3];
      ASSERT_EQ(std::bit_cast<uint32_t>(out[i]), expected) << "value " << i;
    }
  }
}

TEST(DequantTest, PlainFloatsAtAnyByte) {
  const std::vector<float> values = {1.5f, -0.0f, 65504.0f};
  std::vector<std::byte> bytes(1 + 12);
  std::memcpy(&bytes[1], values.data(), 12);
  std::vector<float> out(3);
  cpu::dequantize(QuantType::kF32, &bytes[1], out);
  EXPECT_EQ(kernel_test::bits(out), kernel_test::bits(values));
  for (size_t i = 0; i < 3; ++i) {
    const uint16_t half = f32_to_f16(values[i]);
    std::memcpy(&bytes[1 + 2 * i], &half, 2);
  }
  cpu::dequantize(QuantType::kF16, &bytes[1], out);
  EXPECT_EQ(kernel_test::bits(out), kernel_test::bits(values));
  const uint16_t brain[3] = {0x3fc0, 0x8000, 0x7f80};
  std::memcpy(&bytes[1], brain, 6);
  cpu::dequantize(QuantType::kBF16, &bytes[1], out);
  EXPECT_EQ(out[0], 1.5f);
  EXPECT_TRUE(std::isinf(out[2]));
  cpu::dequantize(QuantType::kF32, nullptr, {});
}

}  // namespace
}  // namespace spillway

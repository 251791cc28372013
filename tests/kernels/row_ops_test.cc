// The ops along rows: norm, quantisation, activation, exp, rope, biases and residuals, half
// conversion; each against a reference in double and with equal bits everywhere.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "kernels/cpu/kernel_table.h"
#include "tests/support/kernel_fixtures.h"

namespace spillway {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
const float kNan = std::nanf("");

class RowOpsTest : public testing::Test {
 protected:
  // f(exec) on every instruction set and two pools must give the bits of the first.
  template <typename F>
  void expect_equal_bits(F f) {
    const auto expected = kernel_test::bits(f(cpu::Exec{&one_, cpu::Isa::kScalar}));
    for (const cpu::Isa isa : kernel_test::available_isas()) {
      for (ThreadPool* pool : {&one_, &three_}) {
        ASSERT_EQ(kernel_test::bits(f(cpu::Exec{pool, isa})), expected) << cpu::isa_name(isa);
      }
    }
  }

  ThreadPool one_{1};
  ThreadPool three_{3};
  std::mt19937 random_{1234};
};

TEST_F(RowOpsTest, HashOfRowsSeesEveryBitAndItsPlace) {
  std::vector<float> x = kernel_test::random_floats(random_, 23 * 1031);
  const View2D<const float> rows(x.data(), 23, 1031);
  const auto hash = [&](const cpu::Exec& exec) { return cpu::hash_rows(exec, rows); };
  const uint64_t whole = hash({&one_, cpu::Isa::kScalar});
  EXPECT_EQ(hash({&three_, cpu::best_isa()}), whole);
  x[700] = -x[700];
  EXPECT_NE(hash({&one_, cpu::Isa::kScalar}), whole);
  x[700] = -x[700];
  std::swap(x[3], x[1031 + 3]);
  EXPECT_NE(hash({&one_, cpu::Isa::kScalar}), whole);
  std::swap(x[3], x[1031 + 3]);
  // Rows of nobody: as if they were not there.
  std::vector<int64_t> slots(23, 5);
  EXPECT_EQ(cpu::hash_rows({&one_, cpu::best_isa()}, rows, slots), whole);
  slots[22] = -1;
  EXPECT_EQ(cpu::hash_rows({&three_, cpu::best_isa()}, rows, slots),
            cpu::hash_rows({&one_, cpu::best_isa()}, {x.data(), 22, 1031}));
  EXPECT_EQ(cpu::hash_rows({&one_, cpu::best_isa()}, {x.data(), 0, 1031}), 0U);
}

TEST_F(RowOpsTest, RmsNormAgreesWithDoubleOnAnyWidth) {
  for (const int64_t cols : {1, 2, 15, 16, 17, 64, 576, 2049}) {
    const int64_t rows = cols > 500 ? 23 : 3;  // enough for three threads at the widest
    const std::vector<float> x = kernel_test::random_floats(random_, rows * cols, 3.0f);
    const std::vector<float> weight = kernel_test::random_floats(random_, cols);
    const auto norm = [&](const cpu::Exec& exec) {
      std::vector<float> out(x.size(), kNan);
      cpu::rms_norm(exec, {x.data(), rows, cols}, weight, 1e-5f, {out.data(), rows, cols});
      return out;
    };
    const std::vector<float> out = norm({&one_, cpu::best_isa()});
    for (int64_t r = 0; r < rows; ++r) {
      double squares = 0;
      for (int64_t i = 0; i < cols; ++i) {
        squares += std::pow(static_cast<double>(x[static_cast<size_t>(r * cols + i)]), 2);
      }
      const double factor = 1 / std::sqrt(squares / static_cast<double>(cols) + 1e-5);
      for (int64_t i = 0; i < cols; ++i) {
        const auto at = static_cast<size_t>(r * cols + i);
        const double exact = static_cast<double>(x[at]) * factor *
                             static_cast<double>(weight[static_cast<size_t>(i)]);
        ASSERT_NEAR(out[at], exact, 3e-7 * std::abs(exact));
      }
    }
    expect_equal_bits(norm);
  }
}

TEST_F(RowOpsTest, RmsNormInPlaceStridedZeroAndHuge) {
  std::vector<float> x = kernel_test::random_floats(random_, 3 * 40);
  const std::vector<float> weight(32, 2.0f);
  const cpu::Exec exec{&one_, cpu::best_isa()};
  std::vector<float> apart(3 * 32);
  cpu::rms_norm(exec, View2D<const float>(x.data(), 3, 32, 40), weight, 0.0f,
                {apart.data(), 3, 32});
  const std::vector<float> before = x;
  cpu::rms_norm(exec, View2D<const float>(x.data(), 3, 32, 40), weight, 0.0f,
                View2D<float>(x.data(), 3, 32, 40));
  for (size_t r = 0; r < 3; ++r) {
    for (size_t i = 0; i < 32; ++i) EXPECT_EQ(x[r * 40 + i], apart[r * 32 + i]);
    for (size_t i = 32; i < 40; ++i) EXPECT_EQ(x[r * 40 + i], before[r * 40 + i]);
  }
  // Squares of 1e30 overflow a float, not a double.
  std::vector<float> huge(32, 1e30f), zero(32, 0.0f), out(32);
  cpu::rms_norm(exec, {huge.data(), 1, 32}, weight, 1e-5f, {out.data(), 1, 32});
  EXPECT_FLOAT_EQ(out[5], 2.0f);
  cpu::rms_norm(exec, {zero.data(), 1, 32}, weight, 1e-5f, {out.data(), 1, 32});
  EXPECT_EQ(out[5], 0.0f);
  cpu::rms_norm(exec, View2D<const float>(nullptr, 0, 32), weight, 1e-5f,
                View2D<float>(nullptr, 0, 32));
}

TEST_F(RowOpsTest, RmsNormHeadsIsTheNormOfEveryHead) {
  const int64_t rows = 5, heads = 3, stride = 3 * 50 + 7;
  for (const int64_t dim : {2, 18, 50}) {
    const std::vector<float> x = kernel_test::random_floats(random_, rows * stride, 3.0f);
    const std::vector<float> weight = kernel_test::random_floats(random_, dim);
    const auto norm = [&](const cpu::Exec& exec) {
      std::vector<float> y = x;
      cpu::rms_norm_heads(exec, weight, 1e-6f, View2D<float>(y.data(), rows, heads * dim, stride));
      return y;
    };
    std::vector<double> exact(x.begin(), x.end());  // beyond the heads nothing changes
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t h = 0; h < heads; ++h) {
        double* head = exact.data() + r * stride + h * dim;
        double squares = 0;
        for (int64_t i = 0; i < dim; ++i) squares += head[i] * head[i];
        const double factor = 1 / std::sqrt(squares / static_cast<double>(dim) + 1e-6);
        for (int64_t i = 0; i < dim; ++i) {
          head[i] *= factor * static_cast<double>(weight[static_cast<size_t>(i)]);
        }
      }
    }
    const std::vector<float> y = norm({&one_, cpu::best_isa()});
    for (size_t i = 0; i < y.size(); ++i) ASSERT_NEAR(y[i], exact[i], 3e-7 * std::abs(exact[i]));
    expect_equal_bits(norm);
  }
  std::vector<float> x = {1, 2, 3};
  cpu::rms_norm_heads({&one_, cpu::best_isa()}, {}, 1e-6f, {x.data(), 1, 3});
  EXPECT_EQ(x, (std::vector<float>{1, 2, 3}));
}

struct Codes {
  std::vector<int8_t> q8;
  std::vector<float> scale;
  std::vector<int32_t> sum;
};

Codes quantize(const cpu::Exec& exec, const std::vector<float>& x, int64_t rows, int64_t cols) {
  Codes codes{std::vector<int8_t>(x.size(), 99), std::vector<float>(x.size() / 32, -1),
              std::vector<int32_t>(x.size() / 16, -1)};
  cpu::quantize_rows(
      exec, {View2D<const float>(x.data(), rows, cols), View2D<int8_t>(codes.q8.data(), rows, cols),
             View2D<float>(codes.scale.data(), rows, cols / 32),
             View2D<int32_t>(codes.sum.data(), rows, cols / 16)});
  return codes;
}

TEST_F(RowOpsTest, QuantizeRoundsToNearestAndSums) {
  const int64_t rows = 19, cols = 1056;
  std::vector<float> x = kernel_test::random_floats(random_, rows * cols, 10.0f);
  for (int i = 0; i < 32; ++i) {
    x[static_cast<size_t>(i)] = 0.0f;                                      // a block of zeros
    x[static_cast<size_t>(32 + i)] = static_cast<float>(i) - 0.5f;         // ties
    x[static_cast<size_t>(64 + i)] = 1e-44f * static_cast<float>(i);       // subnormal
    x[static_cast<size_t>(96 + i)] = (i % 2 == 0 ? 1.0f : -1.0f) * 3e38f;  // near the greatest
  }
  x[63] = 127.0f;
  const Codes expected = quantize({&one_, cpu::Isa::kScalar}, x, rows, cols);
  for (size_t b = 0; b < expected.scale.size(); ++b) {
    float maximum = 0;
    for (size_t i = 0; i < 32; ++i) maximum = std::max(maximum, std::abs(x[32 * b + i]));
    const bool tiny = maximum < 0x1p-100f;
    EXPECT_EQ(expected.scale[b], tiny ? 0.0f : maximum / 127.0f);
    int32_t sum[2] = {0, 0};  // of each half
    for (size_t i = 0; i < 32; ++i) {
      const int code = expected.q8[32 * b + i];
      sum[i / 16] += code;
      ASSERT_LE(std::abs(code), 127);
      const double error = std::abs(static_cast<double>(x[32 * b + i]) -
                                    code * static_cast<double>(expected.scale[b]));
      ASSERT_LE(error, 0.50001 * static_cast<double>(expected.scale[b]) + 0x1p-100);
    }
    EXPECT_EQ(expected.sum[2 * b], sum[0]);
    EXPECT_EQ(expected.sum[2 * b + 1], sum[1]);
  }
  for (size_t i = 1; i < 31; ++i) {  // scale is 1: -0.5, 0.5, 1.5 ... go to the even neighbour
    EXPECT_EQ(expected.q8[32 + i] % 2, 0) << i;
  }
  for (const cpu::Isa isa : kernel_test::available_isas()) {
    const Codes codes = quantize({&three_, isa}, x, rows, cols);
    EXPECT_EQ(codes.q8, expected.q8);
    EXPECT_EQ(kernel_test::bits(codes.scale), kernel_test::bits(expected.scale));
    EXPECT_EQ(codes.sum, expected.sum);
  }
}

TEST_F(RowOpsTest, QuantizeMarksBlocksThatAreNotFinite) {
  for (const float poison : {kNan, -kNan, kInfinity, -kInfinity}) {
    for (const size_t at : {32, 47, 63}) {
      std::vector<float> x(96, 1.0f);
      x[at] = poison;
      for (const cpu::Isa isa : kernel_test::available_isas()) {
        const Codes codes = quantize({&one_, isa}, x, 1, 96);
        EXPECT_TRUE(std::isnan(codes.scale[1]));
        EXPECT_EQ(codes.sum[2] | codes.sum[3], 0);
        for (size_t i = 32; i < 64; ++i) EXPECT_EQ(codes.q8[i], 0);
        EXPECT_EQ(codes.q8[0], 127);  // its neighbours are well
        EXPECT_EQ(codes.sum[4], 16 * 127);
      }
    }
  }
}

TEST_F(RowOpsTest, ExpIsWithinOneUlpAndEqualOnEveryInstructionSet) {
  std::vector<float> x;
  for (float v = -104.5f; v < 90.0f; v += 0.000731f) x.push_back(v);
  for (const float v : {0.0f, -0.0f, -kInfinity, kInfinity, -1000.0f, 1000.0f, 88.7228f}) {
    x.push_back(v);
  }
  const auto n = static_cast<int64_t>(x.size());
  const auto exps = [&](const cpu::Exec& exec) {
    std::vector<float> out(x.size());
    cpu::kernel_table(exec.isa).exp_row(x.data(), n, out.data());
    return out;
  };
  const std::vector<float> out = exps({&one_, cpu::best_isa()});
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double exact = std::exp(static_cast<double>(x[i]));
    if (exact >= static_cast<double>(std::numeric_limits<float>::max())) {
      EXPECT_EQ(out[i], kInfinity) << x[i];
      continue;
    }
    if (exact < 0x1p-126) {
      EXPECT_NEAR(out[i], exact, 0x1p-149) << x[i];
      continue;
    }
    const auto nearest = static_cast<float>(exact);
    const double ulp = static_cast<double>(std::nextafterf(nearest, kInfinity)) - nearest;
    worst = std::max(worst, std::abs(static_cast<double>(out[i]) - exact) / ulp);
  }
  EXPECT_LT(worst, 1.0);
  RecordProperty("worst_ulp", std::to_string(worst));
  EXPECT_EQ(out[out.size() - 7], 1.0f);
  EXPECT_EQ(out[out.size() - 6], 1.0f);
  EXPECT_EQ(out[out.size() - 5], 0.0f);
  EXPECT_EQ(out[out.size() - 4], kInfinity);
  EXPECT_EQ(out[out.size() - 3], 0.0f);
  EXPECT_EQ(out[out.size() - 2], kInfinity);
  expect_equal_bits(exps);
  for (const cpu::Isa isa : kernel_test::available_isas()) {
    float nan = 0;
    cpu::kernel_table(isa).exp_row(&kNan, 1, &nan);
    EXPECT_TRUE(std::isnan(nan));
  }
}

TEST_F(RowOpsTest, SwigluOnAnyWidth) {
  for (const int64_t ff : {1, 15, 16, 33, 1536}) {
    const int64_t rows = 7;
    const std::vector<float> gate_up = kernel_test::random_floats(random_, rows * 2 * ff, 5.0f);
    const auto run = [&](const cpu::Exec& exec) {
      std::vector<float> out(static_cast<size_t>(rows * ff), kNan);
      cpu::swiglu(exec, {gate_up.data(), rows, 2 * ff}, {out.data(), rows, ff});
      return out;
    };
    const std::vector<float> out = run({&one_, cpu::best_isa()});
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = 0; i < ff; ++i) {
        const double gate = gate_up[static_cast<size_t>(r * 2 * ff + i)];
        const double up = gate_up[static_cast<size_t>(r * 2 * ff + ff + i)];
        const double exact = gate / (1 + std::exp(-gate)) * up;
        ASSERT_NEAR(out[static_cast<size_t>(r * ff + i)], exact, 4e-7 * std::abs(exact));
      }
    }
    expect_equal_bits(run);
  }
  const float edge[4] = {-200.0f, 200.0f, 3.0f, 3.0f};
  float out[2];
  cpu::swiglu({&one_, cpu::best_isa()}, {edge, 1, 4}, {out, 1, 2});
  EXPECT_EQ(out[0], 0.0f);
  EXPECT_EQ(out[1], 600.0f);
}

TEST_F(RowOpsTest, GegluOnAnyWidth) {
  for (const int64_t ff : {1, 15, 16, 33, 2048}) {
    const int64_t rows = 7;
    const std::vector<float> gate_up = kernel_test::random_floats(random_, rows * 2 * ff, 3.0f);
    const auto run = [&](const cpu::Exec& exec) {
      std::vector<float> out(static_cast<size_t>(rows * ff), kNan);
      cpu::geglu(exec, {gate_up.data(), rows, 2 * ff}, {out.data(), rows, ff});
      return out;
    };
    const std::vector<float> out = run({&one_, cpu::best_isa()});
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = 0; i < ff; ++i) {
        const double gate = gate_up[static_cast<size_t>(r * 2 * ff + i)];
        const double up = gate_up[static_cast<size_t>(r * 2 * ff + ff + i)];
        const double u = std::sqrt(2 / std::acos(-1.0)) * (gate + 0.044715 * gate * gate * gate);
        const double exact = gate / 2 * (1 + std::tanh(u)) * up;
        // The exponent -2u carries an error of its own, which shows where the result is all but 0.
        const double relative = 4e-7 + 3e-7 * std::abs(std::min(u, 0.0));
        ASSERT_NEAR(out[static_cast<size_t>(r * ff + i)], exact, relative * std::abs(exact) + 1e-13)
            << gate;
      }
    }
    expect_equal_bits(run);
  }
  const float edge[12] = {-200.0f, 200.0f, 0.0f, -1e30f, 1e30f, kNan, 3, 3, 3, 3, 3, 3};
  for (const cpu::Isa isa : kernel_test::available_isas()) {
    float out[6];
    cpu::geglu({&one_, isa}, {edge, 1, 12}, {out, 1, 6});
    EXPECT_EQ(out[0], 0.0f);
    EXPECT_EQ(out[1], 600.0f);
    EXPECT_EQ(out[2], 0.0f);
    EXPECT_EQ(out[3], 0.0f);
    EXPECT_FLOAT_EQ(out[4], 3e30f);
    EXPECT_TRUE(std::isnan(out[5]));
  }
}

TEST_F(RowOpsTest, RopeRotatesPairsAndLeavesTheRest) {
  const int64_t rows = 5, heads = 3, dim = 10, pairs = 4;  // 2 of 10 values are not rotated
  const std::vector<float> x = kernel_test::random_floats(random_, rows * heads * dim);
  std::vector<float> cos, sin;
  for (int64_t i = 0; i < rows * pairs; ++i) {
    cos.push_back(std::cos(static_cast<float>(i) * 0.7f));
    sin.push_back(std::sin(static_cast<float>(i) * 0.7f));
  }
  const cpu::RopeTable table{{cos.data(), rows, pairs}, {sin.data(), rows, pairs}};
  for (const auto pairing : {cpu::RopePairing::kAdjacent, cpu::RopePairing::kHalves}) {
    const auto run = [&](const cpu::Exec& exec) {
      std::vector<float> y = x;
      cpu::rope(exec, table, pairing, dim, {y.data(), rows, heads * dim});
      return y;
    };
    const std::vector<float> y = run({&one_, cpu::best_isa()});
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t h = 0; h < heads; ++h) {
        const auto base = static_cast<size_t>(r * heads * dim + h * dim);
        for (int64_t i = 0; i < pairs; ++i) {
          const bool adjacent = pairing == cpu::RopePairing::kAdjacent;
          const auto a = base + static_cast<size_t>(adjacent ? 2 * i : i);
          const auto b = base + static_cast<size_t>(adjacent ? 2 * i + 1 : i + pairs);
          const float c = cos[static_cast<size_t>(r * pairs + i)];
          const float s = sin[static_cast<size_t>(r * pairs + i)];
          ASSERT_NEAR(y[a], x[a] * c - x[b] * s, 1e-6);
          ASSERT_NEAR(y[b], x[a] * s + x[b] * c, 1e-6);
        }
        for (size_t i = 8; i < 10; ++i) ASSERT_EQ(y[base + i], x[base + i]);
      }
    }
    expect_equal_bits(run);
  }
}

TEST_F(RowOpsTest, BiasAndResidual) {
  std::vector<float> x = {1, 2, 3, 4, 5, 6};
  const cpu::Exec exec{&three_, cpu::best_isa()};
  cpu::add_bias(exec, {}, {x.data(), 2, 3});
  EXPECT_EQ(x[5], 6.0f);
  cpu::add_bias(exec, std::vector<float>{10, 20, 30}, {x.data(), 2, 3});
  EXPECT_EQ(x, (std::vector<float>{11, 22, 33, 14, 25, 36}));
  // Rounded to float first, then added: 1 + 2^-25 is 1 as a float.
  const std::vector<double> sum = {1 + 0x1p-25, 0.5, -33, 1e300, 0, 0x1p-30};
  cpu::add_residual(exec, {sum.data(), 2, 3}, {x.data(), 2, 3});
  EXPECT_EQ(x, (std::vector<float>{12, 22.5, 0, kInfinity, 25, 36}));
}

TEST_F(RowOpsTest, SumsOfRowsAndScale) {
  const cpu::Exec exec{&three_, cpu::best_isa()};
  const std::vector<double> sum = {1 + 0x1p-25, -0.0, 1e300, -3.5};
  std::vector<float> x(4, kNan);
  cpu::round_sum(exec, {sum.data(), 2, 2}, {x.data(), 2, 2});
  EXPECT_EQ(kernel_test::bits(x),
            kernel_test::bits(std::vector<float>{1.0f, 0.0f, kInfinity, -3.5f}));
  const std::vector<float> y = {2, -1, 7, 0.25f};
  cpu::add_rows(exec, {y.data(), 2, 2}, {x.data(), 2, 2});
  EXPECT_EQ(x, (std::vector<float>{3, -1, kInfinity, -3.25f}));
  cpu::scale_rows(exec, 2.5f, View2D<float>(x.data(), 2, 1, 2));
  EXPECT_EQ(x, (std::vector<float>{7.5f, -1, kInfinity, -3.25f}));
}

TEST_F(RowOpsTest, HalfConversionIsTheSameOnEveryInstructionSet) {
  std::vector<float> x;
  for (int i = 0; i < 200000; ++i) {
    x.push_back(std::bit_cast<float>(static_cast<uint32_t>(random_())));
  }
  const auto n = static_cast<int64_t>(x.size());
  for (const cpu::Isa isa : kernel_test::available_isas()) {
    std::vector<uint16_t> out(x.size());
    cpu::kernel_table(isa).to_f16_row(x.data(), n, out.data());
    for (size_t i = 0; i < x.size(); ++i) ASSERT_EQ(out[i], f32_to_f16(x[i])) << x[i];
  }
}

TEST(RowOpsDeathTest, WrongShapesAreBugs) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  ThreadPool pool(1);
  const cpu::Exec exec{&pool, cpu::Isa::kScalar};
  std::vector<float> x(64), out(64);
  const std::vector<float> weight(31);
  EXPECT_DEATH(cpu::rms_norm(exec, {x.data(), 2, 32}, weight, 0, {out.data(), 2, 32}),
               "CHECK failed");
  EXPECT_DEATH(cpu::swiglu(exec, {x.data(), 2, 32}, {out.data(), 2, 32}), "CHECK failed");
  EXPECT_DEATH(cpu::geglu(exec, {x.data(), 2, 32}, {out.data(), 2, 32}), "CHECK failed");
  EXPECT_DEATH(cpu::rms_norm_heads(exec, weight, 0, {x.data(), 2, 32}), "");
  EXPECT_DEATH(cpu::add_rows(exec, {x.data(), 2, 32}, {out.data(), 2, 31}), "CHECK failed");
  EXPECT_DEATH(cpu::add_bias(exec, weight, {x.data(), 2, 32}), "CHECK failed");
  const cpu::RopeTable table{{x.data(), 2, 8}, {x.data(), 2, 8}};
  EXPECT_DEATH(cpu::rope(exec, table, cpu::RopePairing::kHalves, 8, {out.data(), 2, 32}),
               "CHECK failed");
  std::byte page[1024];
  const KvView cache{page, page, KvType::kF32, 1, 1, 4, 32};
  const std::vector<int64_t> slots = {4};
  EXPECT_DEATH(cpu::kv_write(exec, {x.data(), 1, 32}, {x.data(), 1, 32}, slots, cache),
               "CHECK failed");
}

}  // namespace
}  // namespace spillway

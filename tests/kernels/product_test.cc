// Matrix products against a slow reference, and the promises of ops.h about bits: the same on every
// instruction set, with any batch, any number of threads, and over any split of the columns.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "tests/support/kernel_fixtures.h"

namespace spillway {
namespace {

using kernel_test::Inputs;
using kernel_test::Weights;

std::vector<float> product(const cpu::Exec& exec, std::span<const PackedMatrix> parts,
                           const cpu::Activations& a) {
  int64_t rows = 0;
  for (const PackedMatrix& w : parts) rows += w.rows;
  // Poisoned, so that an output that is not written is seen.
  std::vector<float> out(static_cast<size_t>(a.x.rows * rows), std::nanf("7"));
  cpu::matmul(exec, parts, a, {out.data(), a.x.rows, rows});
  return out;
}

std::vector<double> partial(const cpu::Exec& exec, const PackedMatrix& w,
                            const cpu::Activations& a) {
  std::vector<double> out(static_cast<size_t>(a.x.rows * w.rows), std::nan("7"));
  cpu::matmul_partial(exec, w, a, {out.data(), a.x.rows, w.rows});
  return out;
}

std::vector<float> rounded(const std::vector<double>& values) {
  return {values.begin(), values.end()};
}

class ProductTest : public testing::TestWithParam<QuantType> {
 protected:
  bool quantised() const { return quant_info(GetParam()).block_elements > 1; }
  // Columns that may not be cut: what the sizes below count in.
  int64_t unit() const { return std::max<int64_t>(32, quant_info(GetParam()).block_elements); }

  // What the kernel may differ by: the products of the codes are exact, so only the rounding of
  // about one operation a block (or a value, for floats) of the terms' size remains.
  void expect_near_reference(const Weights& w, const Inputs& in, std::span<const float> out) {
    const std::vector<float> values = w.dequantized();
    for (int64_t i = 0; i < in.n; ++i) {
      for (int64_t r = 0; r < w.rows; ++r) {
        double exact = 0;
        double size = 0;
        for (int64_t k = 0; k < w.cols; ++k) {
          const auto at = static_cast<size_t>(i * in.cols + k);
          const double x = quantised()
                               ? static_cast<double>(in.q8[at]) *
                                     static_cast<double>(in.scale[static_cast<size_t>(at / 32)])
                               : static_cast<double>(in.x[at]);
          const double term = x * static_cast<double>(values[static_cast<size_t>(r * w.cols + k)]);
          exact += term;
          size += std::abs(term);
        }
        ASSERT_NEAR(out[static_cast<size_t>(i * w.rows + r)], exact, 1e-6 * size + 1e-30)
            << "row " << r << " of input " << i;
      }
    }
  }

  ThreadPool one_{1};
  ThreadPool three_{3};
  std::mt19937 random_{20261122};
};

TEST_P(ProductTest, AgreesWithReferenceOnOddSizes) {
  for (const auto& [rows, units, n] : {std::tuple{1, 1, 1},
                                       {15, 2, 2},
                                       {16, 3, 3},
                                       {17, 1, 5},
                                       {33, 5, 7},
                                       {48, 8, 13},
                                       {130, 10, 9}}) {
    const int64_t cols = units * unit();
    const cpu::Exec scalar{&one_, cpu::Isa::kScalar};
    const Weights w = kernel_test::random_weights(scalar, random_, GetParam(), rows, cols);
    Inputs in(scalar, n, cols, kernel_test::random_floats(random_, n * cols));
    for (const cpu::Isa isa : kernel_test::available_isas()) {
      const cpu::Exec exec{&one_, isa};
      SCOPED_TRACE(std::string(cpu::isa_name(isa)) + " rows " + std::to_string(rows));
      expect_near_reference(w, in, product(exec, std::span(&w.packed, 1), in.view()));
      expect_near_reference(w, in, rounded(partial(exec, w.packed, in.view())));
    }
  }
}

TEST_P(ProductTest, EqualBitsOnEveryInstructionSetAndPool) {
  const cpu::Exec scalar{&one_, cpu::Isa::kScalar};
  for (const int64_t n : {1, 2, 3, 4, 6, 8, 11, 16, 23}) {
    const int64_t rows = 16 * (n % 5) + 37;
    const int64_t cols = unit() * (n % 3 + 3);
    const Weights w = kernel_test::random_weights(scalar, random_, GetParam(), rows, cols);
    Inputs in(scalar, n, cols, kernel_test::random_floats(random_, n * cols));
    const auto expected = kernel_test::bits(product(scalar, {&w.packed, 1}, in.view()));
    const auto expected_partial = kernel_test::bits(partial(scalar, w.packed, in.view()));
    for (const cpu::Isa isa : kernel_test::available_isas()) {
      for (ThreadPool* pool : {&one_, &three_}) {
        const cpu::Exec exec{pool, isa};
        ASSERT_EQ(kernel_test::bits(product(exec, {&w.packed, 1}, in.view())), expected)
            << cpu::isa_name(isa) << " n " << n;
        ASSERT_EQ(kernel_test::bits(partial(exec, w.packed, in.view())), expected_partial)
            << cpu::isa_name(isa) << " n " << n;
      }
    }
  }
}

TEST_P(ProductTest, RowDoesNotDependOnTheBatch) {
  const int64_t n = 11, rows = 403, cols = 512;  // enough work for three threads
  for (const cpu::Isa isa : kernel_test::available_isas()) {
    const cpu::Exec exec{&three_, isa};
    const Weights w = kernel_test::random_weights(exec, random_, GetParam(), rows, cols);
    const std::vector<float> x = kernel_test::random_floats(random_, n * cols);
    Inputs all(exec, n, cols, x);
    const std::vector<float> together = product(exec, {&w.packed, 1}, all.view());
    const std::vector<double> together_partial = partial(exec, w.packed, all.view());
    for (int64_t i = 0; i < n; ++i) {
      Inputs one(exec, 1, cols, {x.begin() + i * cols, x.begin() + (i + 1) * cols});
      const auto slice = std::span(together).subspan(static_cast<size_t>(i * rows), rows);
      EXPECT_EQ(kernel_test::bits(product(exec, {&w.packed, 1}, one.view())),
                kernel_test::bits(slice));
      const auto slice64 = std::span(together_partial).subspan(static_cast<size_t>(i * rows), rows);
      EXPECT_EQ(kernel_test::bits(partial(exec, w.packed, one.view())), kernel_test::bits(slice64));
    }
  }
}

// What tensor parallelism rests on: partial sums over any split of the columns, added in f64, round
// to the float of the unsplit product.
TEST_P(ProductTest, PartialSumsOverAnySplitRoundToTheSameFloat) {
  const int64_t n = 3, rows = 50, blocks = 40, cols = unit() * blocks;
  const cpu::Exec exec{&one_, cpu::best_isa()};
  for (int trial = 0; trial < 12; ++trial) {
    const Weights w = kernel_test::random_weights(exec, random_, GetParam(), rows, cols);
    Inputs in(exec, n, cols, kernel_test::random_floats(random_, n * cols));
    const std::vector<float> whole = rounded(partial(exec, w.packed, in.view()));
    std::vector<int64_t> cuts = {0, cols};
    for (int c = 0; c < trial % 5; ++c) {
      cuts.push_back(unit() * static_cast<int64_t>(random_() % static_cast<uint32_t>(blocks + 1)));
    }
    std::sort(cuts.begin(), cuts.end());
    std::vector<double> total(whole.size(), 0.0);
    for (size_t c = 0; c + 1 < cuts.size(); ++c) {
      const Range range{cuts[c], cuts[c + 1]};  // may be empty: a product over 0 columns is 0
      const Weights part = w.columns(exec, range);
      const std::vector<double> sums = partial(exec, part.packed, in.columns(range));
      for (size_t i = 0; i < total.size(); ++i) total[i] += sums[i];
    }
    EXPECT_EQ(kernel_test::bits(rounded(total)), kernel_test::bits(whole)) << "trial " << trial;
  }
}

TEST_P(ProductTest, PartsLieBesideEachOther) {
  const int64_t n = 5, cols = 3 * unit();
  for (const cpu::Isa isa : kernel_test::available_isas()) {
    const cpu::Exec exec{&three_, isa};
    std::vector<Weights> weights;
    std::vector<PackedMatrix> parts;
    for (const int64_t rows : {40, 0, 7, 64}) {
      weights.push_back(kernel_test::random_weights(exec, random_, GetParam(), rows, cols));
      parts.push_back(weights.back().packed);
    }
    // Neighbours in the output may be of another type.
    weights.push_back(kernel_test::random_weights(exec, random_, QuantType::kQ8_0, 20, cols));
    parts.push_back(weights.back().packed);
    Inputs in(exec, n, cols, kernel_test::random_floats(random_, n * cols));
    const std::vector<float> together = product(exec, parts, in.view());
    int64_t column = 0;
    for (const PackedMatrix& part : parts) {
      const std::vector<float> alone = product(exec, {&part, 1}, in.view());
      for (int64_t i = 0; i < n; ++i) {
        for (int64_t r = 0; r < part.rows; ++r) {
          ASSERT_EQ(together[static_cast<size_t>(i * 131 + column + r)],
                    alone[static_cast<size_t>(i * part.rows + r)]);
        }
      }
      column += part.rows;
    }
    ASSERT_EQ(column, 131);
  }
}

TEST_P(ProductTest, EmptyShapes) {
  const cpu::Exec exec{&three_, cpu::best_isa()};
  const Weights no_columns = kernel_test::random_weights(exec, random_, GetParam(), 20, 0);
  Inputs none(exec, 2, 0, {});
  EXPECT_EQ(product(exec, {&no_columns.packed, 1}, none.view()), std::vector<float>(40, 0.0f));
  EXPECT_EQ(partial(exec, no_columns.packed, none.view()), std::vector<double>(40, 0.0));
  const Weights w = kernel_test::random_weights(exec, random_, GetParam(), 20, 2 * unit());
  Inputs no_rows(exec, 0, 2 * unit(), {});
  EXPECT_TRUE(product(exec, {&w.packed, 1}, no_rows.view()).empty());
  const Weights empty = kernel_test::random_weights(exec, random_, GetParam(), 0, 2 * unit());
  Inputs in(exec, 2, 2 * unit(), kernel_test::random_floats(random_, 4 * unit()));
  EXPECT_TRUE(product(exec, {&empty.packed, 1}, in.view()).empty());
  EXPECT_TRUE(product(exec, {}, in.view()).empty());
}

TEST_P(ProductTest, ExtremeCodesDoNotSaturate) {
  const int64_t rows = 16, cols = 2 * unit();
  for (const int sign : {1, -1}) {
    std::vector<float> x(static_cast<size_t>(cols), static_cast<float>(sign) * 127.0f);
    for (const int fill : {0, 255, 0x80, 0x7f}) {
      const cpu::Exec scalar{&one_, cpu::Isa::kScalar};
      Weights w = kernel_test::random_weights(scalar, random_, GetParam(), rows, cols);
      if (!quantised()) return;
      // Codes and sub-scales all `fill`, the half floats as they were.
      const auto block = static_cast<size_t>(quant_info(GetParam()).block_bytes);
      const size_t begin = kernel_test::half_offset(GetParam());
      const size_t end = begin + kernel_test::half_bytes(GetParam());
      for (size_t i = 0; i < w.file.size(); ++i) {
        if (i % block < begin || i % block >= end) w.file[i] = static_cast<std::byte>(fill);
      }
      const Weights filled = w.columns(scalar, {0, cols});
      Inputs in(scalar, 1, cols, x);
      const auto expected = kernel_test::bits(product(scalar, {&filled.packed, 1}, in.view()));
      w.packed = filled.packed;
      for (const cpu::Isa isa : kernel_test::available_isas()) {
        const std::vector<float> out = product({&one_, isa}, {&filled.packed, 1}, in.view());
        EXPECT_EQ(kernel_test::bits(out), expected) << cpu::isa_name(isa) << " fill " << fill;
        expect_near_reference(w, in, out);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, ProductTest, testing::ValuesIn(kernel_test::computable_types()),
                         [](const auto& param) {
                           return std::string(quant_info(param.param).name);
                         });

TEST(ProductFloatTest, ColumnsThatAreNoMultipleOf32) {
  ThreadPool pool(1);
  std::mt19937 random(5);
  for (const QuantType type : {QuantType::kF32, QuantType::kF16, QuantType::kBF16}) {
    for (const int64_t cols : {1, 2, 31, 33, 47, 66}) {
      const cpu::Exec scalar{&pool, cpu::Isa::kScalar};
      const Weights w = kernel_test::random_weights(scalar, random, type, 21, cols);
      Inputs in(scalar, 3, cols, kernel_test::random_floats(random, 3 * cols));
      cpu::Activations only_x;
      only_x.x = in.view().x;
      const std::vector<float> expected = product(scalar, {&w.packed, 1}, only_x);
      const std::vector<float> values = w.dequantized();
      for (int64_t r = 0; r < 21; ++r) {
        double exact = 0;
        for (int64_t k = 0; k < cols; ++k) {
          exact += static_cast<double>(values[static_cast<size_t>(r * cols + k)]) *
                   static_cast<double>(in.x[static_cast<size_t>(k)]);
        }
        EXPECT_NEAR(expected[static_cast<size_t>(r)], exact, 1e-5);
      }
      for (const cpu::Isa isa : kernel_test::available_isas()) {
        const std::vector<float> out = product({&pool, isa}, {&w.packed, 1}, only_x);
        EXPECT_EQ(kernel_test::bits(out), kernel_test::bits(expected)) << cols;
      }
    }
  }
}

TEST(ProductFaultTest, NanInTheInputReachesTheOutput) {
  ThreadPool pool(1);
  std::mt19937 random(6);
  for (const QuantType type : {QuantType::kQ4_0, QuantType::kQ4_1, QuantType::kF16}) {
    for (const cpu::Isa isa : kernel_test::available_isas()) {
      const cpu::Exec exec{&pool, isa};
      const Weights w = kernel_test::random_weights(exec, random, type, 16, 64);
      std::vector<float> x = kernel_test::random_floats(random, 128);
      x[40] = std::nanf("");
      Inputs in(exec, 2, 64, x);
      const std::vector<float> out = product(exec, {&w.packed, 1}, in.view());
      for (size_t r = 0; r < 16; ++r) {
        EXPECT_TRUE(std::isnan(out[r]));
        EXPECT_TRUE(std::isfinite(out[16 + r]));  // the other row is untouched
      }
    }
  }
}

TEST(ProductDeathTest, WrongShapesAreBugs) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  ThreadPool pool(1);
  const cpu::Exec exec{&pool, cpu::best_isa()};
  std::mt19937 random(7);
  const Weights w = kernel_test::random_weights(exec, random, QuantType::kQ8_0, 16, 64);
  Inputs in(exec, 1, 64, kernel_test::random_floats(random, 64));
  Inputs narrow(exec, 1, 32, kernel_test::random_floats(random, 32));
  std::vector<float> out(16);
  const std::span<const PackedMatrix> parts(&w.packed, 1);
  EXPECT_DEATH(cpu::matmul(exec, parts, narrow.view(), {out.data(), 1, 16}), "CHECK failed");
  EXPECT_DEATH(cpu::matmul(exec, parts, in.view(), {out.data(), 1, 15}), "CHECK failed");
  cpu::Activations no_codes;
  no_codes.x = in.view().x;
  EXPECT_DEATH(cpu::matmul(exec, parts, no_codes, {out.data(), 1, 16}), "CHECK failed");
  PackedMatrix crooked = w.packed;
  crooked.data += 2;
  EXPECT_DEATH(cpu::matmul(exec, {&crooked, 1}, in.view(), {out.data(), 1, 16}), "CHECK failed");
  PackedMatrix unknown = w.packed;
  unknown.type = QuantType::kQ2_K;
  EXPECT_DEATH(cpu::matmul(exec, {&unknown, 1}, in.view(), {out.data(), 1, 16}), "CHECK failed");
}

}  // namespace
}  // namespace spillway

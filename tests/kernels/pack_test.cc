// The packed layout: its sizes, that packing loses nothing, any cut of rows and columns, padding;
// and embed, which reads it row by row.
#include "kernels/cpu/pack.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "tests/support/kernel_fixtures.h"

namespace spillway {
namespace {

using kernel_test::Weights;

class PackTest : public testing::TestWithParam<QuantType> {
 protected:
  // Columns that may not be cut: what the sizes below count in.
  int64_t unit() const { return std::max<int64_t>(32, quant_info(GetParam()).block_elements); }

  ThreadPool pool_{3};
  cpu::Exec exec_{&pool_, cpu::best_isa()};
  std::mt19937 random_{11};
};

// Bit-equal rows of `packed` and of the reference.
void expect_row(const PackedMatrix& packed, int64_t row, std::span<const float> expected) {
  std::vector<double> out(static_cast<size_t>(packed.cols), std::nan(""));
  cpu::unpack_row(packed, row, out);
  for (size_t k = 0; k < out.size(); ++k) {
    ASSERT_EQ(std::bit_cast<uint64_t>(out[k]),
              std::bit_cast<uint64_t>(static_cast<double>(expected[k])))
        << "row " << row << " column " << k;
  }
}

TEST_P(PackTest, RoundTrip) {
  for (const auto& [rows, units] : {std::pair{1, 1}, {16, 1}, {17, 3}, {200, 32}, {40, 7}}) {
    const int64_t cols = units * unit();
    const Weights w = kernel_test::random_weights(exec_, random_, GetParam(), rows, cols);
    const std::vector<float> values = w.dequantized();
    for (int64_t r = 0; r < rows; ++r) {
      expect_row(
          w.packed, r,
          std::span(values).subspan(static_cast<size_t>(r * cols), static_cast<size_t>(cols)));
    }
  }
}

TEST_P(PackTest, AnyRowsAndColumnsToAnyRow) {
  const int64_t rows = 61, cols = 10 * unit();
  const Weights w = kernel_test::random_weights(exec_, random_, GetParam(), rows, cols);
  const std::vector<float> values = w.dequantized();
  const Range columns{2 * unit(), 5 * unit()};
  // Out of three pieces of rows, in an order and at borders that cut row groups.
  const Range pieces[] = {{50, 61}, {0, 7}, {20, 43}};
  const int64_t total = 11 + 7 + 23;
  const int64_t bytes = packed_bytes(GetParam(), total, columns.size());
  Arena arena("pack test", bytes);
  const PackedMatrix out{GetParam(), total, columns.size(), arena.take(bytes)};
  std::memset(out.data, 0xff, static_cast<size_t>(bytes));
  int64_t at = 0;
  for (const Range piece : pieces) {
    cpu::pack(exec_, {GetParam(), rows, cols, w.file.data()}, piece, columns, out, at);
    at += piece.size();
  }
  at = 0;
  for (const Range piece : pieces) {
    for (int64_t r = piece.begin; r < piece.end; ++r, ++at) {
      expect_row(out, at,
                 std::span(values).subspan(static_cast<size_t>(r * cols + columns.begin),
                                           static_cast<size_t>(columns.size())));
    }
  }
  // Rows beyond the matrix are zeros, although the memory was not.
  const PackedMatrix padded{GetParam(), round_up(total, kRowGroup), columns.size(), out.data};
  for (int64_t r = total; r < padded.rows; ++r) {
    std::vector<double> padding(static_cast<size_t>(columns.size()), 1.0);
    cpu::unpack_row(padded, r, padding);
    for (const double value : padding) ASSERT_EQ(value, 0.0) << "row " << r;
  }
}

TEST_P(PackTest, BytesAreExact) {
  const QuantInfo& info = quant_info(GetParam());
  EXPECT_EQ(packed_bytes(GetParam(), 0, unit()), 0);
  EXPECT_EQ(packed_bytes(GetParam(), 64, 0), 0);
  // Whole groups and whole lines: not a byte more than the file.
  EXPECT_EQ(packed_bytes(GetParam(), 64, 512), 64 * 512 / info.block_elements * info.block_bytes);
  EXPECT_EQ(packed_bytes(GetParam(), 1, 512), packed_bytes(GetParam(), 16, 512));
  EXPECT_EQ(packed_bytes(GetParam(), 16, 3 * unit()) % kPackedAlignment, 0);
  // Pack writes nothing outside them.
  const int64_t rows = 19, cols = 3 * unit();
  const int64_t bytes = packed_bytes(GetParam(), rows, cols);
  Arena arena("pack test", bytes + 128);
  std::byte* memory = arena.take(bytes + 128);
  std::memset(memory, 0x5a, static_cast<size_t>(bytes + 128));
  const auto file = kernel_test::random_file_rows(random_, GetParam(), rows, cols);
  const PackedMatrix out{GetParam(), rows, cols, memory + 64};
  cpu::pack(exec_, {GetParam(), rows, cols, file.data()}, {0, rows}, {0, cols}, out, 0);
  for (int64_t i = 0; i < 64; ++i) {
    EXPECT_EQ(memory[i], std::byte{0x5a});
    EXPECT_EQ(memory[64 + bytes + i], std::byte{0x5a});
  }
}

TEST_P(PackTest, EmbedGivesRowsAndZerosOutsideTheShard) {
  const int64_t dim = 2 * unit();
  const Weights w = kernel_test::random_weights(exec_, random_, GetParam(), 30, dim);
  const std::vector<float> values = w.dequantized();
  const std::vector<int32_t> tokens = {100, 129, 99, 130, 107, 107, -1, 2147483647};
  std::vector<double> out(tokens.size() * static_cast<size_t>(dim), std::nan(""));
  cpu::embed(exec_, w.packed, tokens, 100, {out.data(), static_cast<int64_t>(tokens.size()), dim});
  for (size_t i = 0; i < tokens.size(); ++i) {
    const bool here = tokens[i] >= 100 && tokens[i] < 130;
    for (size_t k = 0; k < static_cast<size_t>(dim); ++k) {
      const float expected = here ? values[static_cast<size_t>((tokens[i] - 100) * dim) + k] : 0.0f;
      ASSERT_EQ(out[i * static_cast<size_t>(dim) + k], static_cast<double>(expected)) << tokens[i];
    }
  }
  cpu::embed(exec_, w.packed, {}, 0, {out.data(), 0, dim});
}

INSTANTIATE_TEST_SUITE_P(Types, PackTest, testing::ValuesIn(kernel_test::computable_types()),
                         [](const auto& param) {
                           return std::string(quant_info(param.param).name);
                         });

TEST(PackDeathTest, WrongCutsAreBugs) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  ThreadPool pool(1);
  const cpu::Exec exec{&pool, cpu::Isa::kScalar};
  std::mt19937 random(3);
  const Weights w = kernel_test::random_weights(exec, random, QuantType::kQ4_0, 16, 128);
  const cpu::GgufMatrix source{QuantType::kQ4_0, 16, 128, w.file.data()};
  PackedMatrix half = w.packed;
  half.cols = 64;
  EXPECT_DEATH(cpu::pack(exec, source, {0, 16}, {16, 80}, half, 0), "CHECK failed");
  EXPECT_DEATH(cpu::pack(exec, source, {0, 16}, {0, 96}, half, 0), "CHECK failed");
  EXPECT_DEATH(cpu::pack(exec, source, {0, 16}, {96, 160}, half, 0), "CHECK failed");
  EXPECT_DEATH(cpu::pack(exec, source, {0, 17}, {0, 64}, half, 0), "CHECK failed");
  EXPECT_DEATH(cpu::pack(exec, source, {0, 16}, {0, 64}, half, 1), "CHECK failed");
  half.type = QuantType::kQ4_1;
  EXPECT_DEATH(cpu::pack(exec, source, {0, 16}, {0, 64}, half, 0), "CHECK failed");
  std::vector<double> row(128);
  EXPECT_DEATH(cpu::unpack_row(w.packed, 16, row), "CHECK failed");
}

}  // namespace
}  // namespace spillway

// CUDA's pack and embed against the CPU's, for every type: equal bytes, whatever is between the
// planes untouched, and equal floats. File rows begin on any byte and end with the memory.
#include <gtest/gtest.h>

#include <string>

#include "tests/support/cuda_row_fixtures.h"

namespace spillway {
namespace {

using cuda_test::OnDevice;

class CudaPack : public testing::TestWithParam<QuantType> {
 protected:
  int64_t block() const { return quant_info(GetParam()).block_elements; }

  // Some rows and columns of a file go to some rows of a matrix.
  struct Part {
    Range rows;
    int64_t out_row;
  };
  void expect_equal_bytes(int64_t file_rows, int64_t file_cols, Range cols, int64_t out_rows,
                          const std::vector<Part>& parts, size_t shift);

  ThreadPool pool_{2};
  cpu::Exec cpu_{&pool_, cpu::best_isa()};
  cuda_test::FreshRandom random_;
  cuda_test::Runner gpu_;
};

void CudaPack::expect_equal_bytes(int64_t file_rows, int64_t file_cols, Range cols,
                                  int64_t out_rows, const std::vector<Part>& parts, size_t shift) {
  const QuantType type = GetParam();
  SCOPED_TRACE(testing::Message() << file_rows << " x " << file_cols << ", columns " << cols.begin
                                  << " to " << cols.end << ", shifted by " << shift);
  const std::vector<std::byte> file =
      kernel_test::random_file_rows(random_, type, file_rows, file_cols);
  std::vector<std::byte> shifted(shift);
  shifted.insert(shifted.end(), file.begin(), file.end());
  const OnDevice<std::byte> device_file(shifted);
  const int64_t bytes = packed_bytes(type, out_rows, cols.size());
  const OnDevice<std::byte> device_out(bytes);
  Arena arena("expected", bytes);
  const PackedMatrix expected{type, out_rows, cols.size(), arena.take(bytes)};
  std::memset(expected.data, 0xff, static_cast<size_t>(bytes));
  const PackedMatrix out{type, out_rows, cols.size(), device_out.data()};
  for (const Part& part : parts) {
    cpu::pack(cpu_, {type, file_rows, file_cols, file.data()}, part.rows, cols, expected,
              part.out_row);
    const std::byte* first =
        device_file.data() + shift + part.rows.begin * quant_bytes(type, file_cols);
    cuda::pack(gpu_.exec, type, first, part.rows.size(), file_cols, cols, out, part.out_row);
  }
  gpu_.wait();
  const std::vector<std::byte> found = device_out.values();
  for (size_t i = 0; i < found.size(); ++i) {
    ASSERT_EQ(found[i], expected.data[i]) << "byte " << i << " of " << found.size();
  }
}

TEST_P(CudaPack, HasTheCpusBytes) {
  size_t shift = 0;
  for (const auto& [rows, units] : {std::pair{1, 1}, {16, 1}, {17, 3}, {45, 7}, {33, 40}}) {
    const int64_t cols = units * block();
    expect_equal_bytes(rows, cols, {0, cols}, rows, {{{0, rows}, 0}}, shift++ % 4);
  }
  // Rows of the shapes that models have.
  const int64_t wide = std::max<int64_t>(block(), 1) * (block() == 1 ? 1536 : 4096 / block());
  expect_equal_bytes(70, wide, {0, wide}, 70, {{{0, 70}, 0}}, 1);
}

TEST_P(CudaPack, StackedPartsAndCutColumns) {
  const int64_t cols = 23 * block();
  const Range cut{5 * block(), 18 * block()};
  // Borders that cut row groups, in an order of their own; the last rows fill the group.
  expect_equal_bytes(61, cols, cut, 41, {{{50, 61}, 0}, {{20, 43}, 18}, {{0, 7}, 11}}, 3);
  // The matrix's last rows are not written: no lane is filled.
  expect_equal_bytes(20, cols, cut, 40, {{{3, 12}, 2}}, 0);
  expect_equal_bytes(20, cols, cut, 40, {}, 2);
}

TEST_P(CudaPack, EmbedHasTheCpusFloats) {
  const int64_t rows = 37;
  for (const int64_t units : {1, 3, 11}) {
    const int64_t cols = units * std::max<int64_t>(block(), block() == 1 ? 7 : 1);
    const kernel_test::Weights w =
        kernel_test::random_weights(cpu_, random_, GetParam(), rows, cols);
    const int64_t bytes = packed_bytes(w.type, rows, cols);
    const OnDevice<std::byte> table(std::vector<std::byte>(w.packed.data, w.packed.data + bytes));
    // Rows of the table, first and last ones, one before it and one behind it.
    const std::vector<int32_t> tokens = {100, 136, 99, 137, 116, 115, 100, -5, 131};
    const auto n = static_cast<int64_t>(tokens.size());
    std::vector<double> expected(static_cast<size_t>(n * cols));
    cpu::embed(cpu_, w.packed, tokens, 100, {expected.data(), n, cols});
    const OnDevice<int32_t> device_tokens(tokens);
    for (const int64_t gap : {0, 3}) {
      const OnDevice<float> out(n * (cols + gap));
      const PackedMatrix device_table{w.type, rows, cols, table.data()};
      cuda::embed(gpu_.exec, device_table, device_tokens.data(), 100,
                  View2D<float>(out.data(), n, cols, cols + gap));
      gpu_.wait();
      const std::vector<float> found = out.values();
      for (int64_t i = 0; i < n; ++i) {
        for (int64_t c = 0; c < cols; ++c) {
          const float value = found[static_cast<size_t>(i * (cols + gap) + c)];
          ASSERT_EQ(std::bit_cast<uint64_t>(static_cast<double>(value)),
                    std::bit_cast<uint64_t>(expected[static_cast<size_t>(i * cols + c)]))
              << "token " << i << " column " << c << " of " << cols;
        }
        for (int64_t c = cols; c < cols + gap; ++c) {
          ASSERT_TRUE(std::isnan(found[static_cast<size_t>(i * (cols + gap) + c)]))
              << "between rows";
        }
      }
    }
    cuda::embed(gpu_.exec, {w.type, rows, cols, table.data()}, nullptr, 0,
                View2D<float>(nullptr, 0, cols));
    gpu_.wait();
  }
}

INSTANTIATE_TEST_SUITE_P(Types, CudaPack, testing::ValuesIn(kernel_test::computable_types()),
                         [](const auto& type) -> std::string {
                           return quant_info(type.param).name;
                         });

}  // namespace
}  // namespace spillway

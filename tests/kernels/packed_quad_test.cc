// A packed row read by quads, as the device kernels do: the bits of the CPU's unpack_row, for every
// type, lane and place in a block.
#include "kernels/core/packed_quad.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "kernels/core/iq_grids.h"
#include "kernels/cpu/pack.h"
#include "tests/support/kernel_fixtures.h"

namespace spillway {
namespace {

class PackedQuad : public testing::TestWithParam<QuantType> {};

template <QuantType Q>
const uint32_t* host_grid() {
  if constexpr (Q == QuantType::kIQ2_XXS) return kGridIq2Xxs.words;
  if constexpr (Q == QuantType::kIQ2_XS) return kGridIq2Xs.words;
  if constexpr (Q == QuantType::kIQ2_S) return kGridIq2S.words;
  if constexpr (Q == QuantType::kIQ3_XXS) return kGridIq3Xxs.words;
  if constexpr (Q == QuantType::kIQ3_S) return kGridIq3S.words;
  return nullptr;
}

template <QuantType Q>
std::vector<float> row_by_quads(const PackedMatrix& matrix, int64_t row) {
  const GroupLayout layout = group_layout(matrix.type, matrix.cols);
  const PackedPlanes from = packed_planes(matrix.data + row / kRowGroup * layout.bytes, layout);
  const auto lane = static_cast<int>(row % kRowGroup);
  std::vector<float> out;
  if constexpr (QuantTraits<Q>::kBits == 0) {
    for (int64_t k = 0; k < matrix.cols; ++k) out.push_back(plain_at<Q>(from, lane, k));
  } else {
    for (int64_t quad = 0; quad < matrix.cols / 4; ++quad) {
      float values[4];
      packed_quad<Q>(from, lane, quad, host_grid<Q>(), values);
      out.insert(out.end(), values, values + 4);
    }
  }
  return out;
}

TEST_P(PackedQuad, HasTheBitsOfUnpackRow) {
  ThreadPool pool(1);
  const cpu::Exec exec{&pool, cpu::best_isa()};
  std::mt19937 random(29);
  const int64_t rows = 19, cols = 5 * std::max<int64_t>(32, quant_info(GetParam()).block_elements);
  const kernel_test::Weights w = kernel_test::random_weights(exec, random, GetParam(), rows, cols);
  for (int64_t row = 0; row < rows; ++row) {
    std::vector<double> expected(static_cast<size_t>(cols), std::nan(""));
    cpu::unpack_row(w.packed, row, expected);
    const std::vector<float> found = dispatch(
        GetParam(), [&](auto tag) { return row_by_quads<decltype(tag)::kType>(w.packed, row); });
    ASSERT_EQ(found.size(), expected.size());
    for (size_t k = 0; k < found.size(); ++k) {
      ASSERT_EQ(std::bit_cast<uint64_t>(static_cast<double>(found[k])),
                std::bit_cast<uint64_t>(expected[k]))
          << "row " << row << " column " << k;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, PackedQuad, testing::ValuesIn(kernel_test::computable_types()),
                         [](const auto& type) -> std::string {
                           return quant_info(type.param).name;
                         });

}  // namespace
}  // namespace spillway

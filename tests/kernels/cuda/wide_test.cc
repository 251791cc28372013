// Products of many rows on sm_90a (kernels/cuda/wide.h) against a slow sum in double over the same
// codes: every quant type, sizes that fill no block, blocks of rows, several matrices at once, the
// fused gate.
#include "kernels/cuda/wide.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/core/half.h"
#include "tests/support/cuda_product_fixtures.h"

namespace spillway {
namespace {

using cuda_test::DeviceInput;
using cuda_test::OnDevice;
using kernel_test::Inputs;
using kernel_test::Weights;

class CudaWide : public cuda_test::CudaProduct {
 protected:
  void SetUp() override {
    if (!quantised()) GTEST_SKIP() << "plain floats go through the library";
    if (!cuda::wide_here(run_.exec)) GTEST_SKIP() << "no sm_90a here";
    run_.exec.wide = true;
    run_.exec.library = nullptr;  // a call that went there would fail
  }

  void expect_near(const std::vector<float>& got, const Weights& w, const Inputs& in,
                   int64_t step) const {
    const std::vector<float> values = w.dequantized();
    for (int64_t i = 0; i < in.n; i += i < 130 ? 1 : step) {
      for (int64_t r = 0; r < w.rows; ++r) {
        const auto [sum, size] = exact(w, values, in, i, r, cuda::kBf16Form);
        ASSERT_NEAR(got[static_cast<size_t>(i * w.rows + r)], sum, size / 128 + 1e-30)
            << "row " << r << " of input " << i;
      }
    }
  }

  void check_wide(int64_t rows, int64_t units, int64_t n) {
    SCOPED_TRACE(sizes_text(rows, units * unit(), n));
    const cuda_test::Operands o = operands(rows, units, n);
    expect_near(product_thrice(o), o.w, o.in, 7);
  }
};

TEST_P(CudaWide, OddSizes) {
  check_wide(1, 1, 129);
  check_wide(33, 2, 130);
  check_wide(130, 8, 200);
  check_wide(257, 5, 257);
  check_wide(530, 11, 513);
}

TEST_P(CudaWide, LongRows) { check_wide(64, 4096 / unit() + 3, 140); }

// A row of input gives the same bits whatever rows are beside it, and in blocks of rows.
TEST_P(CudaWide, RowsAreTheirOwn) {
  const int64_t rows = 100, n = 400;
  const cuda_test::Operands o = operands(rows, 9, n);
  const OnDevice<float> whole(n * rows), blocks(n * rows), some(150 * rows);
  cuda::matmul(run_.exec, {&o.matrix, 1}, o.input(), {whole.data(), n, rows});
  cuda::Event ready, done[3];
  ready.record(run_.stream);
  const cuda::RowBlock of[3] = {
      {0, 128, &ready, done}, {128, 137, nullptr, done + 1}, {137, n, &ready, done + 2}};
  cuda::matmul(run_.exec, {&o.matrix, 1}, o.input(), {blocks.data(), n, rows}, of);
  cuda::Input head = o.input();
  head.n = 150;
  cuda::matmul(run_.exec, {&o.matrix, 1}, head, {some.data(), 150, rows});
  run_.wait();
  for (const cuda::Event& event : done) EXPECT_TRUE(event.reached());
  const std::vector<float> expected = whole.values();
  ASSERT_EQ(blocks.values(), expected);
  const std::vector<float> first(expected.begin(), expected.begin() + 150 * rows);
  ASSERT_EQ(some.values(), first);
}

TEST_P(CudaWide, PartsLieSideBySide) {
  const int64_t n = 150;
  const Inputs in = random_input(n, 3 * unit());
  const DeviceInput input(in);
  const Weights a = kernel_test::random_weights(cpu_, random_, GetParam(), 260, in.cols);
  const Weights b = kernel_test::random_weights(cpu_, random_, GetParam(), 7, in.cols);
  const Weights c = kernel_test::random_weights(cpu_, random_, QuantType::kQ8_0, 33, in.cols);
  OnDevice<std::byte> ma(packed_bytes_of(a)), mb(packed_bytes_of(b)), mc(packed_bytes_of(c));
  const PackedMatrix parts[3] = {on_device(a, ma), on_device(b, mb), on_device(c, mc)};
  expect_side_by_side(parts, input.input);
}

TEST_P(CudaWide, FusedGateIsActivationOfProducts) {
  for (const auto& [n, ff] : {std::pair<int64_t, int64_t>{129, 16}, {200, 240}}) {
    const Inputs in = random_input(n, 9 * unit());
    const DeviceInput input(in);
    const Weights gate = kernel_test::random_weights(cpu_, random_, GetParam(), ff, in.cols);
    const Weights up = kernel_test::random_weights(cpu_, random_, GetParam(), ff, in.cols);
    OnDevice<std::byte> mg(packed_bytes_of(gate)), mu(packed_bytes_of(up));
    const PackedMatrix parts[2] = {on_device(gate, mg), on_device(up, mu)};
    ASSERT_TRUE(cuda::fused_gate(run_.exec, parts[0], parts[1], n, cuda::kBf16Form));
    EXPECT_FALSE(
        cuda::fused_gate(run_.exec, parts[0], parts[1], n, cuda::kBf16Form | cuda::kFloatForm));
    for (const bool gelu : {false, true}) {
      const OnDevice<float> products(n * 2 * ff);
      const OnDevice<uint16_t> bf16(n * ff), blocks(n * ff), expected(n * ff);
      cuda::matmul(run_.exec, parts, input.input, {products.data(), n, 2 * ff});
      cuda::gated_activation(run_.exec, {products.data(), n, 2 * ff}, gelu, cuda::kBf16Form,
                             {n, ff, nullptr, nullptr, nullptr, expected.data()});
      cuda::matmul_gated(run_.exec, parts[0], parts[1], gelu, input.input, cuda::kBf16Form,
                         {n, ff, nullptr, nullptr, nullptr, bf16.data()});
      const cuda::RowBlock of[2] = {{0, 100}, {100, n}};
      cuda::matmul_gated(run_.exec, parts[0], parts[1], gelu, input.input, cuda::kBf16Form,
                         {n, ff, nullptr, nullptr, nullptr, blocks.data()}, of);
      run_.wait();
      const std::vector<uint16_t> got = bf16.values();
      const std::vector<uint16_t> want = expected.values();
      for (size_t i = 0; i < got.size(); ++i) {  // at most the next bf16
        const float near = bf16_to_f32(want[i]);
        ASSERT_NEAR(bf16_to_f32(got[i]), near, std::abs(near) / 127 + 1e-30f) << "output " << i;
      }
      ASSERT_EQ(blocks.values(), got);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, CudaWide, testing::ValuesIn(kernel_test::computable_types()),
                         [](const auto& test) { return quant_info(test.param).name; });

}  // namespace
}  // namespace spillway

// CUDA products against a slow sum in double over the same codes, for every quant type, sizes that
// fill no block, and any number of rows: vector kernels, tiles, the fused gate and the library.
#include <gtest/gtest.h>

#include "tests/support/cuda_product_fixtures.h"

namespace spillway {
namespace {

using cuda_test::CudaProduct;
using cuda_test::DeviceInput;
using cuda_test::OnDevice;
using kernel_test::Inputs;
using kernel_test::Weights;

TEST_P(CudaProduct, VectorsOfOddSizes) {
  for (const auto& [rows, units, n] : {std::tuple{1, 1, 1},
                                       {15, 2, 2},
                                       {16, 3, 3},
                                       {17, 1, 5},
                                       {33, 5, 7},
                                       {130, 10, 8},
                                       {64, 19, 1},
                                       {257, 33, 4}}) {
    check(rows, units, n);
  }
}

TEST_P(CudaProduct, TilesOfOddSizes) { check_tiles(); }

TEST_P(CudaProduct, Bf16TilesOfOddSizes) {
  run_.exec.bf16_tiles = true;
  check_tiles();
}

TEST_P(CudaProduct, StripsByEveryPlan) {
  if (!quantised()) GTEST_SKIP() << "plain floats have no tiles";
  run_.exec.bf16_tiles = true;
  for (const auto& [rows, units, n] : {std::tuple{1, 1, 9},
                                       {33, 2, 17},
                                       {70, 5, 31},
                                       {250, 9, 33},
                                       {96, 11, 63},
                                       {48, 17, 64},
                                       {40, 3, 130}}) {
    check_plans(rows, units, n);
  }
}

TEST_P(CudaProduct, FusedGateOfStripsIsActivationOfTheirProducts) {
  if (!quantised()) GTEST_SKIP() << "plain floats have no tiles";
  run_.exec.bf16_tiles = true;
  constexpr unsigned kForms = cuda::kFloatForm | cuda::kBf16Form;
  for (const int64_t n : {9, 17, 63, 70}) {
    const int64_t ff = n == 17 ? 16 : 240;
    const Inputs in = random_input(n, 9 * unit());
    const DeviceInput input(in);
    const Weights gate = kernel_test::random_weights(cpu_, random_, GetParam(), ff, in.cols);
    const Weights up = kernel_test::random_weights(cpu_, random_, GetParam(), ff, in.cols);
    OnDevice<std::byte> mg(packed_bytes_of(gate)), mu(packed_bytes_of(up));
    const PackedMatrix parts[2] = {on_device(gate, mg), on_device(up, mu)};
    ASSERT_TRUE(cuda::fused_gate(run_.exec, parts[0], parts[1], n, kForms));
    for (const cuda::TilePlan& plan : plans(n)) {
      run_.exec.tile_plan = &plan;
      const OnDevice<float> products(n * 2 * ff), x(n * ff), expected_x(n * ff);
      const OnDevice<uint16_t> bf16(n * ff), expected_bf16(n * ff);
      const bool gelu = plan.strips % 2 == 0;
      cuda::matmul(run_.exec, parts, input.input, {products.data(), n, 2 * ff});
      cuda::gated_activation(run_.exec, {products.data(), n, 2 * ff}, gelu, kForms,
                             {n, ff, expected_x.data(), nullptr, nullptr, expected_bf16.data()});
      cuda::matmul_gated(run_.exec, parts[0], parts[1], gelu, input.input, kForms,
                         {n, ff, x.data(), nullptr, nullptr, bf16.data()});
      run_.wait();
      const std::vector<float> got = x.values();
      const std::vector<float> want = expected_x.values();
      for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], want[i]) << "output " << i;
      ASSERT_EQ(bf16.values(), expected_bf16.values());
    }
    run_.exec.tile_plan = nullptr;
  }
}

TEST_P(CudaProduct, ManyRowsThroughTheLibrary) {
  check(48, 3, 129);
  check(130, 8, 200);
}

TEST_P(CudaProduct, NothingForNoRows) {
  const Weights w = kernel_test::random_weights(cpu_, random_, GetParam(), 16, unit());
  OnDevice<std::byte> memory(packed_bytes_of(w));
  const PackedMatrix matrix = on_device(w, memory);
  cuda::matmul(run_.exec, {&matrix, 1}, {0, w.cols}, {nullptr, 0, 16});
  run_.wait();
}

TEST_P(CudaProduct, PartsLieSideBySide) {
  for (const int64_t n : {1, 4, 20}) {
    const Inputs in = random_input(n, 2 * unit());
    const DeviceInput input(in);
    const Weights a = kernel_test::random_weights(cpu_, random_, GetParam(), 40, in.cols);
    const Weights b = kernel_test::random_weights(cpu_, random_, QuantType::kQ8_0, 7, in.cols);
    const Weights c = kernel_test::random_weights(cpu_, random_, GetParam(), 33, in.cols);
    OnDevice<std::byte> ma(packed_bytes_of(a)), mb(packed_bytes_of(b)), mc(packed_bytes_of(c));
    const PackedMatrix parts[3] = {on_device(a, ma), on_device(b, mb), on_device(c, mc)};
    expect_side_by_side(parts, input.input);
  }
}

TEST_P(CudaProduct, FusedGateIsActivationOfProducts) {
  if (!quantised()) {
    const PackedMatrix plain{GetParam(), 96, 3 * unit()};
    EXPECT_FALSE(cuda::fused_gate(run_.exec, plain, plain, 1, cuda::kInt8Form));
    return;
  }
  for (const int64_t n : {1, 2, 3, 8}) {
    for (const bool gelu : {false, true}) {
      const int64_t ff = 96;
      const Inputs in = random_input(n, 3 * unit());
      const DeviceInput input(in);
      const Weights gate = kernel_test::random_weights(cpu_, random_, GetParam(), ff, in.cols);
      const Weights up = kernel_test::random_weights(cpu_, random_, GetParam(), ff, in.cols);
      OnDevice<std::byte> mg(packed_bytes_of(gate)), mu(packed_bytes_of(up));
      const PackedMatrix parts[2] = {on_device(gate, mg), on_device(up, mu)};
      const OnDevice<float> products(n * 2 * ff);
      cuda::matmul(run_.exec, parts, input.input, {products.data(), n, 2 * ff});
      const OnDevice<float> x(n * ff);
      const OnDevice<int8_t> q8(cuda::padded_rows(n) * ff);
      const OnDevice<cuda::ActivationBlock> blocks(cuda::padded_rows(n) * ff / 32);
      const cuda::Input to{n, ff, x.data(), q8.data(), blocks.data(), nullptr};
      constexpr unsigned kForms = cuda::kFloatForm | cuda::kInt8Form;
      ASSERT_TRUE(cuda::fused_gate(run_.exec, parts[0], parts[1], n, kForms));
      cuda::matmul_gated(run_.exec, parts[0], parts[1], gelu, input.input, kForms, to);
      run_.wait();
      const std::vector<float> gu = products.values();
      const std::vector<float> got = x.values();
      const Inputs again(cpu_, n, ff, got);
      const std::vector<int8_t> codes = DeviceInput::codes(again);
      const std::vector<int8_t> got_codes = q8.values();
      const std::vector<cuda::ActivationBlock> metas = blocks.values();
      for (int64_t i = 0; i < n; ++i) {
        for (int64_t r = 0; r < ff; ++r) {
          const double g = gu[static_cast<size_t>(i * 2 * ff + r)];
          const double u = 0.7978845608028654 * (g + 0.044715 * g * g * g);
          const double expected = g / (1 + std::exp(gelu ? -2 * u : -g)) *
                                  static_cast<double>(gu[static_cast<size_t>(i * 2 * ff + ff + r)]);
          ASSERT_NEAR(got[static_cast<size_t>(i * ff + r)], expected,
                      2e-5 * std::abs(expected) + 1e-12);
        }
        for (int64_t b = 0; b < ff / 32; ++b) {
          const auto place = static_cast<size_t>(b * cuda::padded_rows(n) + i);
          const cuda::ActivationBlock& meta = metas[place];
          for (size_t k = 32 * place; k < 32 * place + 32; ++k) ASSERT_EQ(got_codes[k], codes[k]);
          const auto at = static_cast<size_t>(i * ff / 32 + b);
          ASSERT_EQ(meta.scale, again.scale[at]);
          ASSERT_EQ(meta.sum[0], again.sum[2 * at]);
          ASSERT_EQ(meta.sum[1], again.sum[2 * at + 1]);
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, CudaProduct, testing::ValuesIn(kernel_test::computable_types()),
                         [](const auto& test) { return quant_info(test.param).name; });

}  // namespace
}  // namespace spillway

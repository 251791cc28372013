// CUDA products against a slow sum in double over the same codes, for every quant type, sizes that
// fill no block, and any number of rows: vector kernels, tiles, the fused gate and the library.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "kernels/cuda/library.h"
#include "kernels/cuda/tile_plan.h"
#include "tests/support/cuda_fixtures.h"
#include "tests/support/kernel_fixtures.h"

namespace spillway {
namespace {

using cuda_test::OnDevice;
using kernel_test::Inputs;
using kernel_test::Weights;

// A CPU input's codes in the order of kernels/cuda/ops.h.
struct DeviceInput {
  OnDevice<float> x;
  OnDevice<int8_t> q8;
  OnDevice<cuda::ActivationBlock> blocks;
  OnDevice<uint16_t> bf16;
  cuda::Input input;

  explicit DeviceInput(const Inputs& in)
      : x(in.x), q8(codes(in)), blocks(metas(in)), bf16(halves(in)) {
    input = {in.n, in.cols, x.data(), q8.data(), blocks.data(), bf16.data()};
  }

  static std::vector<int8_t> codes(const Inputs& in) {
    const int64_t padded = cuda::padded_rows(in.n);
    std::vector<int8_t> out(static_cast<size_t>(padded * in.cols), 77);
    static constexpr int kOrder[8] = {0, 4, 1, 5, 2, 6, 3, 7};
    for (int64_t i = 0; i < in.n; ++i) {
      for (int64_t k = 0; k < in.cols; ++k) {
        const int64_t place = std::find(kOrder, kOrder + 8, k % 32 / 4) - kOrder;
        out[static_cast<size_t>((k / 32 * padded + i) * 32 + 4 * place + k % 4)] =
            in.q8[static_cast<size_t>(i * in.cols + k)];
      }
    }
    return out;
  }
  static std::vector<cuda::ActivationBlock> metas(const Inputs& in) {
    const int64_t padded = cuda::padded_rows(in.n);
    const int64_t n_blocks = in.cols / 32;
    std::vector<cuda::ActivationBlock> out(static_cast<size_t>(padded * n_blocks),
                                           {std::nanf(""), {-1, -1}});
    for (int64_t i = 0; i < in.n; ++i) {
      for (int64_t b = 0; b < n_blocks; ++b) {
        const auto at = static_cast<size_t>(i * n_blocks + b);
        out[static_cast<size_t>(b * padded + i)] = {
            in.scale[at],
            {static_cast<int16_t>(in.sum[2 * at]), static_cast<int16_t>(in.sum[2 * at + 1])}};
      }
    }
    return out;
  }
  static std::vector<uint16_t> halves(const Inputs& in) {
    std::vector<uint16_t> out(in.x.size());
    for (size_t i = 0; i < out.size(); ++i) {
      uint32_t bits;
      std::memcpy(&bits, &in.x[i], 4);
      out[i] = static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
    }
    return out;
  }
};

class CudaProduct : public testing::TestWithParam<QuantType> {
 protected:
  CudaProduct()
      : workspace_("library", cuda::Library::kWorkspaceBytes),
        scratch_("scratch", 64 << 20),
        library_(workspace_.data()) {
    run_.exec.library = &library_;
    run_.exec.scratch = scratch_.data();
    run_.exec.scratch_bytes = scratch_.bytes();
  }
  bool quantised() const { return quant_info(GetParam()).block_elements > 1; }
  int64_t unit() const { return std::max<int64_t>(32, quant_info(GetParam()).block_elements); }

  static PackedMatrix on_device(const Weights& w, OnDevice<std::byte>& memory) {
    PackedMatrix out = w.packed;
    out.data = memory.data();
    return out;
  }
  static std::vector<std::byte> packed_bytes_of(const Weights& w) {
    const int64_t bytes = packed_bytes(w.packed.type, w.packed.rows, w.packed.cols);
    return {w.packed.data, w.packed.data + bytes};
  }

  // The product in double over what the kernel reads: codes, floats or bf16; and the size of its
  // terms.
  std::pair<double, double> exact(const Weights& w, const std::vector<float>& values,
                                  const Inputs& in, int64_t i, int64_t r, unsigned form) const {
    double sum = 0;
    double size = 0;
    for (int64_t k = 0; k < w.cols; ++k) {
      const auto at = static_cast<size_t>(i * in.cols + k);
      const double x = form == cuda::kInt8Form
                           ? static_cast<double>(in.q8[at]) * static_cast<double>(in.scale[at / 32])
                           : static_cast<double>(in.x[at]);
      const double term = x * static_cast<double>(values[static_cast<size_t>(r * w.cols + k)]);
      sum += term;
      size += std::abs(term);
    }
    return {sum, size};
  }

  void check(int64_t rows, int64_t units, int64_t n) {
    SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(units * unit()) +
                 ", n = " + std::to_string(n));
    const Weights w = kernel_test::random_weights(cpu_, random_, GetParam(), rows, units * unit());
    const Inputs in = random_input(n, w.cols);
    OnDevice<std::byte> memory(packed_bytes_of(w));
    const PackedMatrix matrix = on_device(w, memory);
    const DeviceInput input(in);
    const OnDevice<float> out(n * rows);
    const unsigned form = cuda::input_forms(run_.exec, GetParam(), n);
    cuda::matmul(run_.exec, {&matrix, 1}, input.input, {out.data(), n, rows});
    run_.wait();
    const std::vector<float> first = out.values();
    const std::vector<float> values = w.dequantized();
    // Codes are exact, so a rounding a block remains; bf16 rounds both factors to 8 bits.
    const double tolerance = form == cuda::kBf16Form ? 1.0 / 128 : 2e-6;
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t r = 0; r < rows; ++r) {
        const auto [sum, size] = exact(w, values, in, i, r, form);
        ASSERT_NEAR(first[static_cast<size_t>(i * rows + r)], sum, tolerance * size + 1e-30)
            << "row " << r << " of input " << i;
      }
    }
    // Again, added to what is there: twice the same bits, exactly.
    cuda::matmul_add(run_.exec, matrix, input.input, {out.data(), n, rows});
    run_.wait();
    const std::vector<float> second = out.values();
    for (size_t i = 0; i < first.size(); ++i) {
      if (form == cuda::kBf16Form) {
        ASSERT_NEAR(second[i], 2 * first[i], 1e-5 * std::abs(first[i]) + 1e-6);
      } else {
        ASSERT_EQ(second[i], first[i] + first[i]);
      }
    }
  }

  void check_tiles() {
    for (const auto& [rows, units, n] : {std::tuple{1, 1, 9},
                                         {15, 2, 16},
                                         {70, 3, 17},
                                         {33, 5, 31},
                                         {130, 10, 64},
                                         {64, 9, 65},
                                         {31, 20, 128}}) {
      check(rows, units, n);
    }
  }

  // Plans of all kinds that the device can run for n rows of input.
  std::vector<cuda::TilePlan> plans(int64_t n) const {
    const int nt = n <= 16 ? 2 : n <= 32 ? 4 : 8;
    const bool clusters = run_.exec.major >= 9;
    std::vector<cuda::TilePlan> out;
    for (const cuda::TilePlan& plan : {cuda::TilePlan{1, 1, 1, 2},
                                       {2, 4, 1, 3},
                                       {7, 2, 1, 3},
                                       {3, 1, 1, 2},
                                       {5, 3, 1, 2},
                                       {16, 1, 1, 2},
                                       {1, 2, 2, 3},
                                       {4, 2, 4, 2},
                                       {3, 4, 8, 2}}) {
      if (plan.split > 1 && !clusters) continue;
      if (cuda::strip_shared_bytes(plan, nt, 2) <= (clusters ? 227 : 99) * 1024) {
        out.push_back(plan);
      }
    }
    return out;
  }

  // Every plan against the sum in double; twice the same bits.
  void check_plans(int64_t rows, int64_t units, int64_t n) {
    SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(units * unit()) +
                 ", n = " + std::to_string(n));
    const Weights w = kernel_test::random_weights(cpu_, random_, GetParam(), rows, units * unit());
    const Inputs in = random_input(n, w.cols);
    OnDevice<std::byte> memory(packed_bytes_of(w));
    const PackedMatrix matrix = on_device(w, memory);
    const DeviceInput input(in);
    const std::vector<float> values = w.dequantized();
    std::vector<std::pair<double, double>> expected;
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t r = 0; r < rows; ++r) {
        expected.push_back(exact(w, values, in, i, r, cuda::kBf16Form));
      }
    }
    for (const cuda::TilePlan& plan : plans(n)) {
      SCOPED_TRACE(std::to_string(plan.strips) + " x " + std::to_string(plan.parts) + " / " +
                   std::to_string(plan.split) + ", " + std::to_string(plan.stages));
      run_.exec.tile_plan = &plan;
      const OnDevice<float> out(n * rows);
      const OnDevice<float> again(n * rows);
      cuda::matmul(run_.exec, {&matrix, 1}, input.input, {out.data(), n, rows});
      cuda::matmul(run_.exec, {&matrix, 1}, input.input, {again.data(), n, rows});
      run_.wait();
      const std::vector<float> first = out.values();
      const std::vector<float> second = again.values();
      cuda::matmul_add(run_.exec, matrix, input.input, {out.data(), n, rows});
      run_.wait();
      const std::vector<float> doubled = out.values();
      for (size_t i = 0; i < first.size(); ++i) {
        const auto [sum, size] = expected[i];
        ASSERT_NEAR(first[i], sum, size / 128 + 1e-30) << "output " << i;
        ASSERT_EQ(first[i], second[i]);
        ASSERT_EQ(doubled[i], first[i] + first[i]);
      }
    }
    run_.exec.tile_plan = nullptr;
  }

  Inputs random_input(int64_t n, int64_t cols) {
    return Inputs(cpu_, n, cols, kernel_test::random_floats(random_, n * cols));
  }

  ThreadPool pool_{2};
  cpu::Exec cpu_{&pool_, cpu::Isa::kScalar};
  cuda_test::Runner run_;
  cuda::DeviceMemory workspace_;
  cuda::DeviceMemory scratch_;
  cuda::Library library_;
  unsigned seed_ = std::random_device{}();
  std::mt19937 random_{(RecordProperty("seed", std::to_string(seed_)), seed_)};
};

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
  for (const bool strips : {true, false}) {
    run_.exec.strips = strips;
    check_tiles();
  }
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
    const OnDevice<float> together(n * 80);
    cuda::matmul(run_.exec, parts, input.input, {together.data(), n, 80});
    int64_t column = 0;
    for (const PackedMatrix& part : parts) {
      const OnDevice<float> alone(n * part.rows);
      cuda::matmul(run_.exec, {&part, 1}, input.input, {alone.data(), n, part.rows});
      run_.wait();
      const std::vector<float> expected = alone.values();
      const std::vector<float> all = together.values();
      for (int64_t i = 0; i < n; ++i) {
        for (int64_t r = 0; r < part.rows; ++r) {
          ASSERT_EQ(all[static_cast<size_t>(i * 80 + column + r)],
                    expected[static_cast<size_t>(i * part.rows + r)]);
        }
      }
      column += part.rows;
    }
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

// For parity tests of the CUDA products: inputs in all forms on the device, random weights against
// a slow sum in double over the same codes, for a quant type that is the test's parameter.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "kernels/cuda/tile_plan.h"
#include "tests/support/cuda_fixtures.h"
#include "tests/support/kernel_fixtures.h"

namespace spillway::cuda_test {

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

// A matrix and an input, here and on the device.
struct Operands {
  Weights w;
  Inputs in;
  OnDevice<std::byte> memory;
  PackedMatrix matrix;
  DeviceInput device_input;

  Operands(const cpu::Exec& exec, std::mt19937& random, QuantType type, int64_t rows, int64_t cols,
           int64_t n)
      : w(kernel_test::random_weights(exec, random, type, rows, cols)),
        in(exec, n, cols, kernel_test::random_floats(random, n * cols)),
        memory(packed_bytes_of(w)),
        matrix(w.packed),
        device_input(in) {
    matrix.data = memory.data();
  }
  const cuda::Input& input() const { return device_input.input; }

  static std::vector<std::byte> packed_bytes_of(const Weights& w) {
    const int64_t bytes = packed_bytes(w.packed.type, w.packed.rows, w.packed.cols);
    return {w.packed.data, w.packed.data + bytes};
  }
};

class CudaProduct : public testing::TestWithParam<QuantType> {
 protected:
  CudaProduct() : library_(run_.exec, 64 << 20) {}
  bool quantised() const { return quant_info(GetParam()).block_elements > 1; }
  int64_t unit() const { return std::max<int64_t>(32, quant_info(GetParam()).block_elements); }

  static PackedMatrix on_device(const Weights& w, OnDevice<std::byte>& memory) {
    PackedMatrix out = w.packed;
    out.data = memory.data();
    return out;
  }
  static std::vector<std::byte> packed_bytes_of(const Weights& w) {
    return Operands::packed_bytes_of(w);
  }
  Operands operands(int64_t rows, int64_t units, int64_t n) {
    return {cpu_, random_, GetParam(), rows, units * unit(), n};
  }
  static std::string sizes_text(int64_t rows, int64_t cols, int64_t n) {
    return std::to_string(rows) + " x " + std::to_string(cols) + ", n = " + std::to_string(n);
  }

  // A product twice, with the same bits; and once more, added to what is there.
  std::vector<float> product_thrice(const Operands& o) {
    const int64_t n = o.in.n;
    const int64_t rows = o.w.rows;
    const OnDevice<float> out(n * rows);
    const OnDevice<float> again(n * rows);
    cuda::matmul(run_.exec, {&o.matrix, 1}, o.input(), {out.data(), n, rows});
    cuda::matmul(run_.exec, {&o.matrix, 1}, o.input(), {again.data(), n, rows});
    run_.wait();
    std::vector<float> first = out.values();
    EXPECT_EQ(first, again.values());
    cuda::matmul_add(run_.exec, o.matrix, o.input(), {out.data(), n, rows});
    run_.wait();
    const std::vector<float> doubled = out.values();
    for (size_t i = 0; i < first.size(); ++i) {
      EXPECT_EQ(doubled[i], first[i] + first[i]) << "output " << i;
      if (doubled[i] != first[i] + first[i]) break;
    }
    return first;
  }

  // Several matrices at once write what each writes alone, side by side.
  void expect_side_by_side(std::span<const PackedMatrix> parts, const cuda::Input& input) {
    int64_t width = 0;
    for (const PackedMatrix& part : parts) width += part.rows;
    const OnDevice<float> together(input.n * width);
    cuda::matmul(run_.exec, parts, input, {together.data(), input.n, width});
    int64_t column = 0;
    for (const PackedMatrix& part : parts) {
      const OnDevice<float> alone(input.n * part.rows);
      cuda::matmul(run_.exec, {&part, 1}, input, {alone.data(), input.n, part.rows});
      run_.wait();
      const std::vector<float> expected = alone.values();
      const std::vector<float> all = together.values();
      for (int64_t i = 0; i < input.n; ++i) {
        for (int64_t r = 0; r < part.rows; ++r) {
          ASSERT_EQ(all[static_cast<size_t>(i * width + column + r)],
                    expected[static_cast<size_t>(i * part.rows + r)]);
        }
      }
      column += part.rows;
    }
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
    SCOPED_TRACE(sizes_text(rows, units * unit(), n));
    const Operands o = operands(rows, units, n);
    const OnDevice<float> out(n * rows);
    const unsigned form = cuda::input_forms(run_.exec, GetParam(), n);
    cuda::matmul(run_.exec, {&o.matrix, 1}, o.input(), {out.data(), n, rows});
    run_.wait();
    const std::vector<float> first = out.values();
    const std::vector<float> values = o.w.dequantized();
    // Codes are exact, so a rounding a block remains; bf16 rounds both factors to 8 bits.
    const double tolerance = form == cuda::kBf16Form ? 1.0 / 128 : 2e-6;
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t r = 0; r < rows; ++r) {
        const auto [sum, size] = exact(o.w, values, o.in, i, r, form);
        ASSERT_NEAR(first[static_cast<size_t>(i * rows + r)], sum, tolerance * size + 1e-30)
            << "row " << r << " of input " << i;
      }
    }
    // Again, added to what is there: twice the same bits, exactly.
    cuda::matmul_add(run_.exec, o.matrix, o.input(), {out.data(), n, rows});
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
    SCOPED_TRACE(sizes_text(rows, units * unit(), n));
    const Operands o = operands(rows, units, n);
    const std::vector<float> values = o.w.dequantized();
    std::vector<std::pair<double, double>> expected;
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t r = 0; r < rows; ++r) {
        expected.push_back(exact(o.w, values, o.in, i, r, cuda::kBf16Form));
      }
    }
    for (const cuda::TilePlan& plan : plans(n)) {
      SCOPED_TRACE(std::to_string(plan.strips) + " x " + std::to_string(plan.parts) + " / " +
                   std::to_string(plan.split) + ", " + std::to_string(plan.stages));
      run_.exec.tile_plan = &plan;
      const std::vector<float> first = product_thrice(o);
      for (size_t i = 0; i < first.size(); ++i) {
        const auto [sum, size] = expected[i];
        ASSERT_NEAR(first[i], sum, size / 128 + 1e-30) << "output " << i;
      }
    }
    run_.exec.tile_plan = nullptr;
  }

  Inputs random_input(int64_t n, int64_t cols) {
    return Inputs(cpu_, n, cols, kernel_test::random_floats(random_, n * cols));
  }

  ThreadPool pool_{2};
  cpu::Exec cpu_{&pool_, cpu::Isa::kScalar};
  Runner run_;
  WithLibrary library_;
  unsigned seed_ = std::random_device{}();
  std::mt19937 random_{(RecordProperty("seed", std::to_string(seed_)), seed_)};
};

}  // namespace spillway::cuda_test

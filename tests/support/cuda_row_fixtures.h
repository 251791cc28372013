// For parity tests of CUDA ops along rows: fresh random inputs with their seed printed, and the
// forms of a product's input (ops.h) on the device, compared with the CPU's codes of the same
// floats.
#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <iostream>
#include <random>

#include "tests/support/cuda_fixtures.h"
#include "tests/support/kernel_fixtures.h"

namespace spillway::cuda_test {

// A generator whose seed a failing test's output names.
class FreshRandom : public std::mt19937 {
 public:
  FreshRandom() : FreshRandom(std::random_device{}()) {}

 private:
  explicit FreshRandom(uint32_t seed) : std::mt19937(seed) {
    std::cout << "seed " << seed << std::endl;
  }
};

// To nearest, ties to even; by integers, unlike the device.
inline uint16_t bf16_of(float f) {
  const auto bits = std::bit_cast<uint32_t>(f);
  if (std::isnan(f)) return static_cast<uint16_t>(bits >> 16 | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// A product's input in all its forms, poisoned.
struct Forms {
  Forms(int64_t n_in, int64_t cols_in)
      : n(n_in),
        cols(cols_in),
        padded(cuda::padded_rows(n)),
        x(n * cols),
        q8(cols / 32 * padded * 32),
        blocks(cols / 32 * padded),
        bf16(n * cols) {}
  cuda::Input input() const { return {n, cols, x.data(), q8.data(), blocks.data(), bf16.data()}; }

  // q8, blocks and bf16 are those of `values` [n, cols], bit for bit: by the CPU's quantize_rows.
  void expect_forms_of(const std::vector<float>& values, unsigned forms) const {
    if (forms & cuda::kBf16Form) expect_bf16(values);
    if (forms & cuda::kInt8Form) expect_codes(values);
  }

  int64_t n;
  int64_t cols;
  int64_t padded;
  OnDevice<float> x;
  OnDevice<int8_t> q8;
  OnDevice<cuda::ActivationBlock> blocks;
  OnDevice<uint16_t> bf16;

 private:
  void expect_bf16(const std::vector<float>& values) const {
    const std::vector<uint16_t> found = bf16.values();
    ASSERT_EQ(found.size(), values.size());
    for (size_t i = 0; i < found.size(); ++i) {
      if (std::isnan(values[i])) {
        ASSERT_TRUE(std::isnan(bf16_to_f32(found[i]))) << i;
      } else {
        ASSERT_EQ(found[i], bf16_of(values[i]))
            << "value " << i << " of " << cols << ": " << values[i];
      }
    }
  }
  void expect_codes(const std::vector<float>& values) const {
    ThreadPool pool(1);
    const kernel_test::Inputs cpu({&pool, cpu::best_isa()}, n, cols, values);
    const std::vector<int8_t> codes = q8.values();
    const std::vector<cuda::ActivationBlock> found = blocks.values();
    constexpr int64_t kQuadOrder[8] = {0, 4, 1, 5, 2, 6, 3, 7};
    for (int64_t row = 0; row < n; ++row) {
      for (int64_t b = 0; b < cols / 32; ++b) {
        const int64_t at = b * padded + row;
        const int64_t cpu_at = row * (cols / 32) + b;
        const cuda::ActivationBlock& block = found[static_cast<size_t>(at)];
        ASSERT_EQ(std::bit_cast<uint32_t>(block.scale),
                  std::bit_cast<uint32_t>(cpu.scale[static_cast<size_t>(cpu_at)]))
            << "row " << row << " block " << b;
        for (int64_t i = 0; i < 32; ++i) {
          const int64_t from = at * 32 + 4 * (i / 4) + i % 4;
          const int64_t column = 4 * kQuadOrder[i / 4] + i % 4;
          ASSERT_EQ(codes[static_cast<size_t>(from)],
                    cpu.q8[static_cast<size_t>(cpu_at * 32 + column)])
              << "row " << row << " block " << b << " column " << column;
        }
        for (int64_t h = 0; h < 2; ++h) {
          ASSERT_EQ(block.sum[h], cpu.sum[static_cast<size_t>(2 * cpu_at + h)])
              << "row " << row << " block " << b << " half " << h;
        }
      }
    }
  }
};

inline bool is_poison(const std::vector<float>& values) {
  for (const float value : values) {
    if (std::bit_cast<uint32_t>(value) != 0xffffffffu) return false;
  }
  return true;
}

}  // namespace spillway::cuda_test

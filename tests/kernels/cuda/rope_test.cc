// rope, rope_table, rope_kv_write and kv_write: bits of the CPU's; the table within a unit in the
// last place of cosines in double. Inputs are new every time, the seed is printed.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "tests/support/cuda_fixtures.h"
#include "tests/support/kernel_fixtures.h"

namespace spillway {
namespace {

using cuda_test::OnDevice;

class CudaRope : public testing::Test {
 protected:
  CudaRope() : seed_(std::random_device()()), random_(seed_) {}
  void TearDown() override {
    if (HasFailure()) std::printf("seed %u\n", seed_);
  }

  // Cosines and sines of n rows by the definition.
  void fill_table(int64_t n, int64_t pairs) {
    cos_.clear();
    sin_.clear();
    for (int64_t i = 0; i < n * pairs; ++i) {
      const double angle = static_cast<double>(random_() % 100000) / 100;
      cos_.push_back(static_cast<float>(std::cos(angle)));
      sin_.push_back(static_cast<float>(std::sin(angle)));
    }
  }

  unsigned seed_;
  std::mt19937 random_;
  cuda_test::Runner runner_;
  ThreadPool pool_{1};
  std::vector<float> cos_, sin_;
};

struct RopeShape {
  int64_t rows, heads, kv_heads, dim, pairs;
};
const std::vector<RopeShape>& shapes() {
  static const std::vector<RopeShape> all = {{1, 9, 3, 64, 32},   {3, 4, 2, 48, 10},
                                             {70, 2, 1, 128, 64}, {5, 3, 3, 80, 16},
                                             {2, 1, 1, 16, 0},    {9, 6, 2, 96, 40}};
  return all;
}

TEST_F(CudaRope, RotatesAsTheCpu) {
  for (const RopeShape& s : shapes()) {
    fill_table(s.rows, s.pairs);
    const OnDevice<float> cos(cos_), sin(sin_);
    const int64_t cols = s.heads * s.dim;
    for (const bool halves : {false, true}) {
      std::vector<float> x = kernel_test::random_floats(random_, s.rows * (cols + 6), 3.0f);
      const OnDevice<float> on_device(x);
      cuda::rope(runner_.exec, {{cos.data(), s.rows, s.pairs}, {sin.data(), s.rows, s.pairs}},
                 halves ? cuda::RopePairing::kHalves : cuda::RopePairing::kAdjacent, s.dim,
                 {on_device.data(), s.rows, cols, cols + 6});
      runner_.wait();
      cpu::rope({&pool_, cpu::Isa::kScalar},
                {{cos_.data(), s.rows, s.pairs}, {sin_.data(), s.rows, s.pairs}},
                halves ? cpu::RopePairing::kHalves : cpu::RopePairing::kAdjacent, s.dim,
                {x.data(), s.rows, cols, cols + 6});
      EXPECT_EQ(kernel_test::bits(on_device.values()), kernel_test::bits(x)) << s.dim << halves;
    }
  }
  cuda::rope(runner_.exec, {}, cuda::RopePairing::kHalves, 64, {nullptr, 0, 64});
}

TEST_F(CudaRope, TableOfAnyPosition) {
  for (const int64_t rows : {1, 3, 300}) {
    for (const int64_t pairs : {1, 32, 50}) {
      std::vector<int32_t> positions;
      std::vector<double> angles;
      for (int64_t i = 0; i < rows; ++i) {
        positions.push_back(static_cast<int32_t>(random_() % 131072));
      }
      for (int64_t p = 0; p < pairs; ++p) {
        angles.push_back(std::pow(1e6, -static_cast<double>(p) / static_cast<double>(pairs)));
      }
      const OnDevice<int32_t> on_positions(positions);
      const OnDevice<double> on_angles(angles);
      const OnDevice<float> cos(rows * (pairs + 1)), sin(rows * pairs);
      cuda::rope_table(runner_.exec, on_positions.data(), on_angles.data(), 1.25,
                       {cos.data(), rows, pairs, pairs + 1}, {sin.data(), rows, pairs});
      runner_.wait();
      const std::vector<float> cosines = cos.values();
      const std::vector<float> sines = sin.values();
      for (int64_t i = 0; i < rows * pairs; ++i) {
        const int64_t row = i / pairs;
        const int64_t pair = i % pairs;
        const double angle =
            positions[static_cast<size_t>(row)] * angles[static_cast<size_t>(pair)];
        ASSERT_NEAR(cosines[static_cast<size_t>(row * (pairs + 1) + pair)], 1.25 * std::cos(angle),
                    1e-7);
        ASSERT_NEAR(sines[static_cast<size_t>(i)], 1.25 * std::sin(angle), 1e-7);
      }
    }
  }
  cuda::rope_table(runner_.exec, nullptr, nullptr, 1, {nullptr, 0, 8}, {nullptr, 0, 8});
}

// The cache afterwards, byte for byte, K rotated in place on the CPU before it is written.
TEST_F(CudaRope, WritesTheCacheAsTheCpu) {
  for (const RopeShape& s : shapes()) {
    for (const KvType type : {KvType::kF16, KvType::kF32, KvType::kQ8_0, KvType::kQ4_0}) {
      if (!kv_type_fits(type, s.dim)) continue;
      for (const bool halves : {false, true}) {
        const int64_t q_cols = s.heads * s.dim;
        const int64_t kv_cols = s.kv_heads * s.dim;
        const int64_t stride = q_cols + 2 * kv_cols;
        fill_table(s.rows, s.pairs);
        std::vector<float> qkv = kernel_test::random_floats(random_, s.rows * stride, 3.0f);
        qkv[0] = 1e30f;
        qkv[static_cast<size_t>(q_cols + kv_cols)] = 65519.0f;  // the greatest half and a rest
        qkv[static_cast<size_t>(q_cols + kv_cols) + 1] = 1e-7f;
        qkv[static_cast<size_t>(q_cols + kv_cols) + 2] = 1e6f;
        const int64_t page_tokens = 16;
        const int64_t n_pages = div_up(s.rows, page_tokens) + 2;
        std::vector<int64_t> slots(static_cast<size_t>(n_pages * page_tokens));
        std::iota(slots.begin(), slots.end(), 0);
        std::shuffle(slots.begin(), slots.end(), random_);
        slots.resize(static_cast<size_t>(s.rows));
        const auto bytes =
            static_cast<size_t>(n_pages * page_tokens * s.kv_heads * kv_row_bytes(type, s.dim));
        std::vector<std::byte> k(bytes, std::byte{0xff}), v(bytes, std::byte{0xff});
        const OnDevice<std::byte> on_k(k), on_v(v), plain_k(k), plain_v(v);
        const OnDevice<float> on_qkv(qkv), cos(cos_), sin(sin_);
        const OnDevice<int64_t> on_slots(slots);
        const auto columns = [&](float* data, int64_t first, int64_t n) {
          return View2D<float>(data + first, s.rows, n, stride);
        };
        const KvView cache{on_k.data(), on_v.data(), type, n_pages, s.kv_heads, page_tokens, s.dim};
        cuda::rope_kv_write(
            runner_.exec, {{cos.data(), s.rows, s.pairs}, {sin.data(), s.rows, s.pairs}},
            halves ? cuda::RopePairing::kHalves : cuda::RopePairing::kAdjacent,
            columns(on_qkv.data(), 0, q_cols), columns(on_qkv.data(), q_cols, kv_cols),
            columns(on_qkv.data(), q_cols + kv_cols, kv_cols), on_slots.data(), cache);
        runner_.wait();
        const std::vector<float> after = on_qkv.values();

        const cpu::Exec exec{&pool_, cpu::best_isa()};
        const cpu::RopeTable table{{cos_.data(), s.rows, s.pairs}, {sin_.data(), s.rows, s.pairs}};
        const auto pairing = halves ? cpu::RopePairing::kHalves : cpu::RopePairing::kAdjacent;
        std::vector<float> expected = qkv;
        cpu::rope(exec, table, pairing, s.dim, columns(expected.data(), 0, q_cols));
        EXPECT_EQ(kernel_test::bits(after), kernel_test::bits(expected)) << "q alone is rotated";
        cpu::rope(exec, table, pairing, s.dim, columns(expected.data(), q_cols, kv_cols));
        KvView on_host = cache;
        on_host.k = k.data();
        on_host.v = v.data();
        cpu::kv_write(exec, columns(expected.data(), q_cols, kv_cols),
                      columns(expected.data(), q_cols + kv_cols, kv_cols), slots, on_host);
        EXPECT_EQ(on_k.values(), k) << s.dim;
        EXPECT_EQ(on_v.values(), v) << s.dim;

        const OnDevice<float> rotated(expected);
        const KvView plain{plain_k.data(), plain_v.data(), type, n_pages,
                           s.kv_heads,     page_tokens,    s.dim};
        cuda::kv_write(runner_.exec, columns(rotated.data(), q_cols, kv_cols),
                       columns(rotated.data(), q_cols + kv_cols, kv_cols), on_slots.data(), plain);
        runner_.wait();
        EXPECT_EQ(plain_k.values(), k) << s.dim;
        EXPECT_EQ(plain_v.values(), v) << s.dim;
      }
    }
  }
}

TEST_F(CudaRope, NoRowsWriteNothing) {
  const KvView cache{nullptr, nullptr, KvType::kF16, 0, 2, 16, 64};
  cuda::kv_write(runner_.exec, {nullptr, 0, 128}, {nullptr, 0, 128}, nullptr, cache);
  const cuda::RopeTable table{{nullptr, 0, 32}, {nullptr, 0, 32}};
  cuda::rope_kv_write(runner_.exec, table, cuda::RopePairing::kHalves, {nullptr, 0, 256},
                      {nullptr, 0, 128}, {nullptr, 0, 128}, nullptr, cache);
  runner_.wait();
}

}  // namespace
}  // namespace spillway

// CUDA's top_k against the CPU's: the same tokens in the same order and the logits' own bits, for
// ties, NaN and zeros of both signs too.
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "tests/support/cuda_row_fixtures.h"

namespace spillway {
namespace {

using cuda_test::OnDevice;

class CudaTopK : public testing::Test {
 protected:
  // rows x cols logits, each made by make(); `gap` infinities between the rows.
  void expect_equal(int64_t rows, int64_t cols, int64_t k, int64_t gap,
                    const std::function<float()>& make) {
    SCOPED_TRACE(testing::Message() << rows << " x " << cols << ", k " << k);
    const int64_t stride = cols + gap;
    std::vector<float> logits(static_cast<size_t>(rows * stride),
                              std::numeric_limits<float>::infinity());
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) logits[static_cast<size_t>(r * stride + c)] = make();
    }
    const OnDevice<float> device(logits);
    const OnDevice<std::byte> workspace(cuda::top_k_workspace_bytes(rows, cols));
    const OnDevice<cuda::Candidate> out(rows * k);
    constexpr int64_t kFirstToken = 1000;
    cuda::top_k(gpu_.exec, View2D<const float>(device.data(), rows, cols, stride), kFirstToken, k,
                workspace.data(), out.data());
    gpu_.wait();
    const std::vector<cuda::Candidate> found = out.values();
    std::vector<cpu::Candidate> expected(static_cast<size_t>(k));
    for (int64_t r = 0; r < rows; ++r) {
      cpu::top_k(
          cpu_,
          std::span(logits).subspan(static_cast<size_t>(r * stride), static_cast<size_t>(cols)),
          kFirstToken, expected);
      for (int64_t i = 0; i < k; ++i) {
        const cuda::Candidate& candidate = found[static_cast<size_t>(r * k + i)];
        const cpu::Candidate& wanted = expected[static_cast<size_t>(i)];
        ASSERT_EQ(candidate.token, wanted.token) << "row " << r << " place " << i;
        ASSERT_EQ(std::bit_cast<uint32_t>(candidate.logit), std::bit_cast<uint32_t>(wanted.logit))
            << "row " << r << " place " << i;
      }
    }
  }
  float normal() { return normal_(random_); }

  ThreadPool pool_{1};
  cpu::Exec cpu_{&pool_, cpu::best_isa()};
  cuda_test::FreshRandom random_;
  std::normal_distribution<float> normal_{0.0f, 4.0f};
  cuda_test::Runner gpu_;
};

TEST_F(CudaTopK, OrdinaryLogits) {
  for (const int64_t cols : {1, 2, 63, 255, 256, 257, 2047, 2048, 2049, 9000, 49152, 128256}) {
    for (const int64_t k : {1, 2, 40, 64, 100, 256}) {
      if (k <= cols) expect_equal(1, cols, k, 0, [&] { return normal(); });
    }
  }
  // Every way to cut a row.
  for (const int64_t k : {1, 64, 65, 128, 129, 256}) {
    expect_equal(1, 262144, k, 0, [&] { return normal(); });
  }
  expect_equal(1, 300001, 256, 0, [&] { return normal(); });
  expect_equal(1, 524288, 256, 0, [&] { return normal(); });
}

TEST_F(CudaTopK, ManyRowsApart) {
  for (const int64_t k : {1, 50, 64}) {
    expect_equal(33, 5003, k, 7, [&] { return normal(); });
    expect_equal(300, 64, k, 1, [&] { return normal(); });
  }
}

TEST_F(CudaTopK, Ties) {
  for (const int64_t cols : {300, 2500, 70001}) {
    for (const int64_t k : {1, 2, 64, 256}) {
      // All equal; few values; two values of which one is rare.
      expect_equal(2, cols, k, 3, [] { return -1.25f; });
      expect_equal(2, cols, k, 3, [&] { return static_cast<float>(random_() % 3) - 1; });
      expect_equal(2, cols, k, 3, [&] { return random_() % 200 == 0 ? 8.0f : 7.0f; });
      // Zeros of both signs are equal, and each stays what it is.
      expect_equal(2, cols, k, 3, [&] { return random_() % 2 == 0 ? 0.0f : -0.0f; });
      // Neighbours: the last bit decides.
      expect_equal(2, cols, k, 3, [&] {
        return std::bit_cast<float>(static_cast<uint32_t>(0x3f800000u + random_() % 4));
      });
    }
  }
}

TEST_F(CudaTopK, HostileLogits) {
  const std::vector<float> odd = {std::nanf(""),
                                  -std::nanf(""),
                                  std::bit_cast<float>(0x7fc12345u),
                                  std::bit_cast<float>(0xffc00001u),
                                  std::numeric_limits<float>::infinity(),
                                  -std::numeric_limits<float>::infinity(),
                                  1e-45f,
                                  -1e-45f,
                                  0.0f,
                                  -0.0f,
                                  std::numeric_limits<float>::max(),
                                  -std::numeric_limits<float>::max()};
  for (const int64_t cols : {256, 4099}) {
    for (const int64_t k : {1, 3, 64, 256}) {
      // Any of them; one number among NaN; all NaN; random bits.
      expect_equal(3, cols, k, 1, [&] { return odd[random_() % odd.size()]; });
      expect_equal(3, cols, k, 1,
                   [&] { return random_() % 100 == 0 ? normal() : odd[random_() % 4]; });
      expect_equal(2, cols, k, 1, [&] { return odd[random_() % 4]; });
      expect_equal(2, cols, k, 1, [] { return -std::numeric_limits<float>::infinity(); });
      expect_equal(3, cols, k, 1,
                   [&] { return std::bit_cast<float>(static_cast<uint32_t>(random_())); });
    }
  }
}

TEST_F(CudaTopK, NothingIsLegal) {
  cuda::top_k(gpu_.exec, View2D<const float>(nullptr, 0, 100), 0, 64, nullptr, nullptr);
  cuda::top_k(gpu_.exec, View2D<const float>(nullptr, 5, 100), 0, 0, nullptr, nullptr);
  gpu_.wait();
}

}  // namespace
}  // namespace spillway

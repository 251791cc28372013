// The probe of the memory's speed: a rate that a GPU can have, the same again, in the time that
// bandwidth.h promises, and all memory back.
#include "kernels/cuda/bandwidth.h"

#include <gtest/gtest.h>

#include <chrono>

#include "tests/support/cuda_fixtures.h"

namespace spillway::cuda_test {
namespace {

TEST(Bandwidth, IsARateThatComesAgain) {
  Runner runner;
  cuda::measure_read_gb_per_s(runner.stream);  // loads the kernel
  const int64_t free_before = cuda::free_device_bytes();
  const auto begin = std::chrono::steady_clock::now();
  const double first = cuda::measure_read_gb_per_s(runner.stream);
  const double ms =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
  EXPECT_EQ(cuda::free_device_bytes(), free_before);
  EXPECT_LT(ms, 50);
  EXPECT_GT(first, 50);     // the slowest GPU with compute capability 8.0 reads 150 GB/s and more
  EXPECT_LT(first, 12000);  // no memory that is sold today
  const double second = cuda::measure_read_gb_per_s(runner.stream);
  EXPECT_NEAR(second / first, 1, 0.15) << first << " and " << second << " GB/s";
}

}  // namespace
}  // namespace spillway::cuda_test

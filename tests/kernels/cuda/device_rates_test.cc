// The probe's rates of the matrix units, the bus and a launch: ones that a GPU can have, the same
// again, in the time that device_rates.h promises, and all memory back.
#include "kernels/cuda/device_rates.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <functional>

#include "tests/support/cuda_fixtures.h"

namespace spillway::cuda_test {
namespace {

double seconds_of(const std::function<void()>& body) {
  const auto begin = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

TEST(DeviceRates, MatrixProducts) {
  Runner runner;
  cuda::measure_matrix_tflops(runner.stream);  // loads the library
  const int64_t free_before = cuda::free_device_bytes();
  double first = 0;
  const double seconds = seconds_of([&] { first = cuda::measure_matrix_tflops(runner.stream); });
  EXPECT_EQ(cuda::free_device_bytes(), free_before);
  EXPECT_LT(seconds, 2);
  EXPECT_GT(first, 5);
  EXPECT_LT(first, 10000);
  const double second = cuda::measure_matrix_tflops(runner.stream);
  EXPECT_NEAR(second / first, 1, 0.2) << first << " and " << second << " TFLOP/s";
  std::printf("bf16 products: %.0f TFLOP/s in %.2f s\n", first, seconds);
}

TEST(DeviceRates, ALaunchInsideOfAGraph) {
  Runner runner;
  const double us = cuda::measure_launch_gap_us(runner.stream);
  EXPECT_GT(us, 0.1);
  EXPECT_LT(us, 20);
  std::printf("an empty kernel in a graph: %.2f us\n", us);
}

TEST(DeviceRates, TheBusAloneAndUnderLoad) {
  const int64_t free_before = cuda::free_device_bytes();
  {
    cuda::BusProbe bus(int64_t{64} << 30);
    EXPECT_GT(bus.pin_gb_per_s(), 0.05);
    const double h2d = bus.h2d_gb_per_s();
    const double d2h = bus.d2h_gb_per_s();
    EXPECT_GT(h2d, 0.5);
    EXPECT_LT(h2d, 1000);
    EXPECT_GT(d2h, 0.5);
    EXPECT_LT(d2h, 1000);
    const double seconds = seconds_of([&] {
      bus.start_load(0.2);
      EXPECT_TRUE(bus.loaded());
      EXPECT_NEAR(bus.finish_load() / h2d, 1, 0.25);
    });
    EXPECT_FALSE(bus.loaded());
    EXPECT_GT(seconds, 0.1);
    EXPECT_LT(seconds, 0.5);
    std::printf("pinning %.2f, to the device %.1f, back %.1f GB/s\n", bus.pin_gb_per_s(), h2d, d2h);
  }
  EXPECT_EQ(cuda::free_device_bytes(), free_before);
  cuda::BusProbe small(0);  // a host without memory to spare: the least there is
  EXPECT_GT(small.h2d_gb_per_s(), 0.1);
}

}  // namespace
}  // namespace spillway::cuda_test

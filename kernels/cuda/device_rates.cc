// See device_rates.h.
#include "kernels/cuda/device_rates.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "kernels/core/check.h"
#include "kernels/core/seconds.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/library.h"

namespace spillway::cuda {

const void* probe_kernel();  // probe_kernel.cu: does nothing

namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kMostSide = 8192;
constexpr int64_t kLeastSide = 1024;
constexpr int kProducts = 5;
constexpr double kMatrixSeconds = 0.5;

constexpr int kGapKernels = 1000;
constexpr int kGapRuns = 5;

constexpr int64_t kMostBusBytes = int64_t{256} << 20;
constexpr int64_t kBusAlignment = int64_t{1} << 20;
constexpr int kCopies = 4;
// A stream takes about a thousand calls before the next one waits on the host, which has memory to
// measure meanwhile. With few bytes a copy the load is shorter then.
constexpr int kMostLoadCopies = 500;

// x, w and the sums in f32.
int64_t product_bytes(int64_t side) { return side * side * (2 + 2 + 4); }

}  // namespace

double measure_matrix_tflops(const Stream& stream) {
  int64_t side = kMostSide;
  const int64_t room = free_device_bytes() / 4 - Library::kWorkspaceBytes;
  while (side >= kLeastSide && product_bytes(side) > room) side /= 2;
  if (side < kLeastSide) return 0;
  const DeviceMemory workspace("the probe's workspace", Library::kWorkspaceBytes);
  Library library(workspace.data());
  // Zeros: the clock of a card near its power limit is higher than with real numbers, by up to a
  // tenth; random bits instead, small enough for sums in f32.
  std::vector<uint16_t> values(static_cast<size_t>(side) * 1024);
  uint32_t state = 1;
  for (uint16_t& value : values) {
    state = state * 1664525u + 1013904223u;  // Numerical Recipes' generator
    value = static_cast<uint16_t>(0x3C00 | ((state >> 16) & 0x83FF));  // 2^-7 to 2^1, both signs
  }
  const DeviceMemory x("the probe's first matrix", side * side * 2);
  const DeviceMemory w("the probe's second matrix", side * side * 2);
  const DeviceMemory sums("the probe's product", side * side * 4);
  const auto bytes = static_cast<int64_t>(values.size() * sizeof(uint16_t));
  for (int64_t at = 0; at < side * side * 2; at += bytes) {
    const int64_t n = std::min(bytes, side * side * 2 - at);
    copy_to_device(stream, x.data() + at, values.data(), n);
    copy_to_device(stream, w.data() + at, values.data(), n);
  }
  const View2D<float> out(reinterpret_cast<float*>(sums.data()), side, side);
  const auto product = [&] {
    library.product(stream.handle(), reinterpret_cast<const uint16_t*>(w.data()), side, side,
                    reinterpret_cast<const uint16_t*>(x.data()), out, false);
  };
  product();  // picks the algorithm and loads it
  stream.synchronize();
  Event start;
  Event end;
  double best_ms = 0;
  const auto begin = Clock::now();
  for (int run = 0; run < kProducts && (run < 2 || seconds_since(begin) < kMatrixSeconds); ++run) {
    start.record(stream);
    product();
    end.record(stream);
    end.synchronize();
    const double ms = end.ms_since(start);
    if (run == 0 || ms < best_ms) best_ms = ms;
  }
  CHECK(best_ms > 0);
  const auto n = static_cast<double>(side);
  return 2 * n * n * n / best_ms * 1e-9;
}

double measure_launch_gap_us(const Stream& stream) {
  Graph::begin(stream);
  for (int i = 0; i < kGapKernels; ++i) {
    CU(cudaLaunchKernel(probe_kernel(), dim3(1), dim3(1), nullptr, 0, stream.handle()));
  }
  const Graph graph = Graph::end(stream);
  graph.launch(stream);
  stream.synchronize();
  Event start;
  Event end;
  double best_ms = 0;
  for (int run = 0; run < kGapRuns; ++run) {
    start.record(stream);
    graph.launch(stream);
    end.record(stream);
    end.synchronize();
    const double ms = end.ms_since(start);
    if (run == 0 || ms < best_ms) best_ms = ms;
  }
  return best_ms * 1e3 / kGapKernels;
}

BusProbe::BusProbe(int64_t free_host_bytes) {
  int64_t bytes = std::min({kMostBusBytes, free_host_bytes / 16, free_device_bytes() / 16});
  bytes = std::max(bytes / kBusAlignment, int64_t{1}) * kBusAlignment;
  const auto start = Clock::now();
  host_ = PinnedMemory("the probe of the bus", bytes);
  pin_gb_per_s_ = static_cast<double>(bytes) / seconds_since(start) * 1e-9;
  device_ = DeviceMemory("the probe of the bus", bytes);
}

double BusProbe::best_of_copies(bool to_device) {
  double best_ms = 0;
  for (int run = 0; run < kCopies; ++run) {
    start_.record(stream_);
    if (to_device) {
      copy_to_device(stream_, device_.data(), host_.data(), host_.bytes());
    } else {
      copy_to_host(stream_, host_.data(), device_.data(), host_.bytes());
    }
    end_.record(stream_);
    end_.synchronize();
    const double ms = end_.ms_since(start_);
    if (run == 0 || ms < best_ms) best_ms = ms;
  }
  CHECK(best_ms > 0);
  return static_cast<double>(host_.bytes()) / best_ms * 1e-6;
}

double BusProbe::h2d_gb_per_s() {
  h2d_gb_per_s_ = best_of_copies(true);
  return h2d_gb_per_s_;
}

double BusProbe::d2h_gb_per_s() { return best_of_copies(false); }

void BusProbe::start_load(double seconds) {
  if (h2d_gb_per_s_ <= 0) h2d_gb_per_s();
  const double copies =
      std::ceil(seconds * h2d_gb_per_s_ * 1e9 / static_cast<double>(host_.bytes()));
  load_copies_ = static_cast<int>(std::clamp(copies, 1.0, static_cast<double>(kMostLoadCopies)));
  start_.record(stream_);
  for (int i = 0; i < load_copies_; ++i) {
    copy_to_device(stream_, device_.data(), host_.data(), host_.bytes());
  }
  end_.record(stream_);
}

bool BusProbe::loaded() const { return !end_.reached(); }

double BusProbe::finish_load() {
  end_.synchronize();
  return static_cast<double>(host_.bytes()) * load_copies_ / end_.ms_since(start_) * 1e-6;
}

}  // namespace spillway::cuda

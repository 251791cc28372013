// See bandwidth.h. Moves `bytes` once a run; 1 GiB is 20 times the second-level cache of an H100,
// and 0.4 ms at its 3 TB/s: long enough that the launch does not show.
#include <algorithm>

#include "kernels/core/check.h"
#include "kernels/cuda/bandwidth.h"
#include "kernels/cuda/launch.cuh"

namespace spillway::cuda {
namespace {

constexpr int64_t kMostBytes = int64_t{1} << 30;
constexpr int64_t kLeastBytes = int64_t{16} << 20;
constexpr int kRuns = 5;
constexpr int kThreads = 256;
constexpr int kBlocksPerMultiprocessor = 8;  // 2048 threads, all that one holds

// Four loads of 16 bytes in flight a thread. Every thread's sum is written, so none is left out.
__global__ void __launch_bounds__(kThreads)
    read_all(const uint4* __restrict__ data, int64_t n, uint32_t* __restrict__ sums) {
  wait_for_previous();
  const int64_t thread = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t stride = int64_t{gridDim.x} * kThreads;
  uint32_t sum = 0;
  int64_t i = thread;
  for (; i + 3 * stride < n; i += 4 * stride) {
    const uint4 a = data[i];
    const uint4 b = data[i + stride];
    const uint4 c = data[i + 2 * stride];
    const uint4 d = data[i + 3 * stride];
    sum += (a.x ^ a.y ^ a.z ^ a.w) + (b.x ^ b.y ^ b.z ^ b.w) + (c.x ^ c.y ^ c.z ^ c.w) +
           (d.x ^ d.y ^ d.z ^ d.w);
  }
  for (; i < n; i += stride) {
    const uint4 a = data[i];
    sum += a.x ^ a.y ^ a.z ^ a.w;
  }
  sums[thread] = sum;
}

int multiprocessors() {
  int ordinal = 0;
  int count = 0;
  CU(cudaGetDevice(&ordinal));
  CU(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, ordinal));
  return count;
}

}  // namespace

double measure_read_gb_per_s(const Stream& stream) {
  const int64_t bytes = std::min(kMostBytes, free_device_bytes() / 4) / kLeastBytes * kLeastBytes;
  if (bytes == 0) return 0;
  const int blocks = multiprocessors() * kBlocksPerMultiprocessor;
  const DeviceMemory data("the probe of the memory's speed", bytes);
  const DeviceMemory sums("the probe's sums", int64_t{blocks} * kThreads * 4);
  Exec exec;
  exec.stream = stream.handle();
  Event start;
  Event end;
  double best_ms = 0;
  for (int run = 0; run < kRuns; ++run) {
    start.record(stream);
    launch(exec, read_all, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), 0,
           reinterpret_cast<const uint4*>(data.data()), bytes / int64_t{sizeof(uint4)},
           reinterpret_cast<uint32_t*>(sums.data()));
    end.record(stream);
    end.synchronize();
    const double ms = end.ms_since(start);
    if (run == 0 || ms < best_ms) best_ms = ms;
  }
  CHECK(best_ms > 0);
  return static_cast<double>(bytes) / best_ms * 1e-6;
}

}  // namespace spillway::cuda

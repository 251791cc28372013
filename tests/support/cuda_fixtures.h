// For parity tests of CUDA ops: values to the device and back, outputs poisoned, an Exec on one
// stream. Tests of this kind need a GPU; tests/gpu/run runs them.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/cuda/device.h"
#include "kernels/cuda/library.h"
#include "kernels/cuda/ops.h"

namespace spillway::cuda_test {

// n values of T in device memory; made from a vector, or poisoned (bytes 0xff: NaN as a float).
template <typename T>
class OnDevice {
 public:
  explicit OnDevice(const std::vector<T>& values) : n_(values.size()), memory_("test", bytes()) {
    cuda::Stream stream;
    cuda::copy_to_device(stream, memory_.data(), values.data(), bytes());
    stream.synchronize();
  }
  explicit OnDevice(int64_t n) : OnDevice(poison(n)) {}
  T* data() const { return reinterpret_cast<T*>(memory_.data()); }
  std::vector<T> values() const {
    std::vector<T> out(n_);
    cuda::Stream stream;
    cuda::copy_to_host(stream, out.data(), memory_.data(), bytes());
    stream.synchronize();
    return out;
  }

 private:
  static std::vector<T> poison(int64_t n) {
    std::vector<T> values(static_cast<size_t>(n));
    if (n > 0) std::memset(static_cast<void*>(values.data()), 0xff, values.size() * sizeof(T));
    return values;
  }
  int64_t bytes() const { return static_cast<int64_t>(n_ * sizeof(T)); }
  size_t n_;
  cuda::DeviceMemory memory_;
};

// The first device, selected once.
inline const cuda::DeviceInfo& device() {
  static const cuda::DeviceInfo info = cuda::select_device(0);
  return info;
}

struct Runner {
  void wait() const { stream.synchronize(); }
  cuda::Stream stream{(device(), cuda::Stream())};
  cuda::Exec exec = cuda::exec_on(stream, device());
};

// The library and its memory, for an Exec that shall have them.
class WithLibrary {
 public:
  WithLibrary(cuda::Exec& exec, int64_t scratch_bytes)
      : workspace_("library", cuda::Library::kWorkspaceBytes),
        scratch_("scratch", scratch_bytes),
        library_(workspace_.data()) {
    exec.library = &library_;
    exec.scratch = scratch_.data();
    exec.scratch_bytes = scratch_.bytes();
  }
  WithLibrary(const WithLibrary&) = delete;

 private:
  cuda::DeviceMemory workspace_, scratch_;
  cuda::Library library_;
};

// Milliseconds of a graph: the median of so many runs.
inline double median_ms(const Runner& run, const cuda::Graph& graph, int runs) {
  std::vector<float> ms;
  for (int i = 0; i < runs; ++i) {
    cuda::Event start;
    cuda::Event stop;
    start.record(run.stream);
    graph.launch(run.stream);
    stop.record(run.stream);
    run.wait();
    ms.push_back(stop.ms_since(start));
  }
  std::sort(ms.begin(), ms.end());
  return static_cast<double>(ms[ms.size() / 2]);
}

}  // namespace spillway::cuda_test

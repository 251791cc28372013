// GpuHidden: --check-hidden on a GPU: the hashes are kernels on the rank's stream, part of a decode
// step's graph, and come to the host with its end. A half layer's partial sums may still wait for
// the next norm when the half ends (gpu_sum.h): what is hashed then is the stream after the half
// before.
//   Owns a word a point on the device and in pinned memory, beside the ledger's.
//   Thread: the rank's main thread.
#pragma once

#include "kernels/cuda/device.h"
#include "runtime/stage/gpu_sum.h"
#include "runtime/stage/hidden_check.h"

namespace spillway {

class GpuHidden {
 public:
  GpuHidden(HiddenCheck where, int64_t n_layers, int n_ranks);

  // In the order of a step: begin(), after() for every half, 0 being the stream as it entered,
  // end(). All in stream order, nothing waits.
  void begin(const GpuStep& step);
  void after(const GpuStep& step, int64_t point, View2D<const float> x);
  void end(const GpuStep& step);
  // The step's hashes, when the stream has been waited for.
  HiddenHashes& hashes();

 private:
  uint64_t* sums() const { return reinterpret_cast<uint64_t*>(sums_.data()); }

  HiddenHashes hashes_;
  int64_t bytes_;
  cuda::DeviceMemory sums_;
  cuda::PinnedMemory host_;
  cuda::Event hashed_;
};

}  // namespace spillway

// Library: bf16 products of many rows through cuBLASLt, with a workspace that the plan has counted.
// Keeps the algorithm of every shape it has seen, so that a shape is asked about once: that takes
// about a kilobyte of the host's heap, also beyond the start, and none of the device's memory.
//   Thread: its device's. Owns the handle; the workspace is the caller's.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/core/tensor.h"
#include "kernels/cuda/device.h"

namespace spillway::cuda {

class Library {
 public:
  static constexpr int64_t kWorkspaceBytes = 32 << 20;

  // workspace: kWorkspaceBytes of device memory. Throws Error when cuBLASLt does not start.
  explicit Library(std::byte* workspace);
  ~Library();
  Library(Library&&) = delete;

  // out = x w^T, or += : x [n, cols] and w [rows, cols] bf16, out [n, rows] f32.
  void product(StreamHandle stream, const uint16_t* w, int64_t rows, int64_t cols,
               const uint16_t* x, View2D<float> out, bool add);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace spillway::cuda

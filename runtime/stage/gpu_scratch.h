// GpuScratch: a rank's activation buffers in its device's memory, taken once from an arena of
// exactly the ledger's bytes (parallel/gpu_ledger.h), and the pinned buffers beside them.
// Owns both.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/cuda/ops.h"
#include "parallel/ledger.h"
#include "parallel/plan.h"

namespace spillway {

// A product's input in all its forms. of(n, cols): for n rows.
struct GpuInputBuffer {
  cuda::Input all;

  cuda::Input of(int64_t n, int64_t cols) const {
    cuda::Input in = all;
    in.n = n;
    in.cols = cols;
    return in;
  }
  // The same memory from row `first` on, for forms that lie row by row: f32 and bf16.
  cuda::Input rows_of(int64_t first, int64_t n, int64_t cols) const {
    cuda::Input in = of(n, cols);
    in.x += first * cols;
    in.bf16 += first * cols;
    in.q8 = nullptr;
    in.blocks = nullptr;
    return in;
  }
};

class GpuScratch {
 public:
  // Throws Error when the device or the host has not enough memory.
  GpuScratch(const ModelSpec& model, const Plan& plan, int rank);

  float* x = nullptr;        // [rows, dim]: the residual stream
  float* partial = nullptr;  // [rows, dim]: this rank's part of a sum; stages of several ranks
  GpuInputBuffer normed;
  float* qkv = nullptr;
  GpuInputBuffer attended;
  float* gate_up = nullptr;
  GpuInputBuffer gated;
  float* rope_cos = nullptr;
  float* rope_sin = nullptr;
  double* rope_angles = nullptr;
  float* window_rope_cos = nullptr;
  float* window_rope_sin = nullptr;
  double* window_rope_angles = nullptr;
  std::byte* step = nullptr;  // the step's arrays
  int64_t step_bytes = 0;
  std::byte* attend = nullptr;
  std::byte* matrix = nullptr;  // a matrix on its way through the library
  int64_t matrix_bytes = 0;
  std::byte* library = nullptr;
  // Last stage:
  GpuInputBuffer logit_x;
  float* logits = nullptr;
  std::byte* topk = nullptr;
  cuda::Candidate* candidates = nullptr;

  // Pinned: the step's arrays on their way to the device, candidates and logits on theirs back.
  std::byte* host_step = nullptr;
  float* host_recv = nullptr;    // [rows, dim]: x from the stage before; not on the first
  float* host_send = nullptr;    // [kSendBuffers][rows, dim]: x for the next stage; not on the last
  int64_t host_send_floats = 0;  // of one of them
  cuda::Candidate* host_candidates = nullptr;
  float* host_logits = nullptr;  // kHostLogitRows rows

  int64_t bytes() const { return memory_.bytes(); }

 private:
  cuda::DeviceMemory memory_;
  cuda::PinnedMemory pinned_;
};

}  // namespace spillway

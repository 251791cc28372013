// GpuExecutor: a rank whose whole part of the model lies on one GPU: embedding, layers, last norm,
// logits and their best candidates, all on the device. A decode step (one row a sequence) is one
// CUDA graph, captured once for every bucket of rows; other steps are launched op by op.
//   Owns its weights, KV cache and buffers in device memory, exactly the ledger's lines.
//   Thread: the rank's main thread. run() allocates nothing.
// Without the CUDA kernels in the build the constructor throws (gpu_absent.cc).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "kernels/cpu/ops.h"
#include "parallel/plan.h"
#include "runtime/io/gguf.h"
#include "runtime/stage/step_batch.h"

namespace spillway {

class GpuExecutor {
 public:
  // Selects the device, loads the weights (on_progress as in load_weights) and captures the graphs.
  // Throws Error when the device is not there, too old, or has not enough memory.
  GpuExecutor(const Gguf& gguf, const ModelSpec& model, const Plan& plan, int rank, int device,
              const cpu::Exec& cpu, const std::function<void(int64_t, int64_t)>& on_progress);
  ~GpuExecutor();
  GpuExecutor(GpuExecutor&&) = delete;

  const char* kind() const { return "gpu"; }
  // One step; message: what Head would send to the front (head.cc), head_message_bytes() of room.
  void run(const StepBatch& batch, std::byte* message);
  int64_t device_bytes() const;  // of the arenas

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace spillway

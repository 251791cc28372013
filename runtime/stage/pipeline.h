// Pipeline: one rank's legs of a step: embedding on the first stage, receive, layers, send, head on
// the last stage, logits gathered on the front. The same call on every rank of the job.
//   Owns the rank's arenas, weights and executor; the mesh is the caller's and must outlive it.
//   Thread: the rank's main thread. After connect() nothing allocates.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "kernels/core/arena.h"
#include "kernels/cpu/ops.h"
#include "parallel/comm_choice.h"
#include "parallel/mesh.h"
#include "parallel/plan.h"
#include "runtime/io/gguf.h"
#include "runtime/model/weights.h"
#include "runtime/stage/executor.h"
#include "runtime/stage/gpu_executor.h"
#include "runtime/stage/head.h"
#include "runtime/stage/scratch.h"
#include "runtime/stage/step_batch.h"

namespace spillway {

class Pipeline {
 public:
  // Loads this rank's weights and reserves everything the ledger names; talks to nobody.
  // exec, model, plan and mesh must outlive it. device: the rank's GPU, used when the plan says so.
  // on_progress: loaded bytes of this rank.
  Pipeline(const Gguf& gguf, const ModelSpec& model, const Plan& plan, Mesh& mesh,
           const cpu::Exec& exec, int device,
           const std::function<void(int64_t, int64_t)>& on_progress);
  ~Pipeline();
  // Collective over the plan's ranks, once before the first step, when all have loaded: connects
  // the GPUs of every stage. comm: what carries their sums.
  void connect(CommChoice comm);

  // One step. On the front fills `result` (may be nullptr elsewhere).
  void forward(const StepBatch& batch, StepResult* result);

  // Bytes of this rank's arenas in host memory: what the ledger promised without the program's own.
  int64_t arena_bytes() const;
  // What carries the sums of this rank's stage, when it is several GPUs: lines to print.
  std::string comm_report() const { return gpu_ == nullptr ? "" : gpu_->comm_report(); }
  // On a GPU: nanoseconds that forward() has waited for it, since the start. 0 on a CPU.
  int64_t gpu_waited_ns() const { return gpu_ == nullptr ? 0 : gpu_->waited_ns(); }

 private:
  void embed(const StepBatch& batch, View2D<float> x);
  // The legs of a rank on the CPU.
  void forward_on_cpu(const StepBatch& batch);

  const cpu::Exec& exec_;
  const ModelSpec& model_;
  const Plan& plan_;
  Mesh& mesh_;
  Arena weight_arena_;
  Weights weights_;
  Scratch scratch_;
  std::unique_ptr<StageExecutor> executor_;  // nullptr on a GPU
  std::unique_ptr<GpuExecutor> gpu_;         // nullptr on a CPU
  Head head_;
};

}  // namespace spillway

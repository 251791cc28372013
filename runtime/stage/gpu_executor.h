// GpuExecutor: a rank whose part of the model lies on one GPU: embedding or what the stage before
// sent, layers, and on the last stage norm, logits and their best candidates, all on the device. A
// decode step (one row a sequence) is one CUDA graph with the sums over the TP group inside,
// captured once for every bucket of rows; other steps are launched op by op, decode too where the
// group's sums cannot be captured.
//   Owns its weights, KV cache and buffers in device memory, exactly the ledger's lines.
//   Thread: the rank's main thread. run() allocates nothing.
// Without the CUDA kernels in the build the constructor throws (gpu_absent.cc).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cpu/ops.h"
#include "parallel/device_communicator.h"
#include "parallel/hop_report.h"
#include "parallel/mesh.h"
#include "parallel/plan.h"
#include "parallel/rank_place.h"
#include "runtime/io/gguf.h"
#include "runtime/stage/hidden_check.h"
#include "runtime/stage/step_batch.h"
#include "runtime/stage/step_trace.h"

namespace spillway {

class GpuExecutor {
 public:
  // Selects the device and loads the weights (on_progress as in load_weights); talks to nobody.
  // mesh must outlive it. spill_folder: where the file of weights on disk goes. Throws Error when
  // the device is not there, too old, or has not enough memory.
  GpuExecutor(const Gguf& gguf, const ModelSpec& model, const Plan& plan, Mesh& mesh, int device,
              const cpu::Exec& cpu, const std::string& spill_folder,
              const std::function<void(int64_t, int64_t)>& on_progress);
  ~GpuExecutor();
  GpuExecutor(GpuExecutor&&) = delete;

  // Once before the first run(), in this order. Collective over the stage: connects its GPUs, for
  // their sums.
  // check: kOff for a stage of one rank.
  void connect(CommChoice comm, HiddenCheck check);
  // Where it sits, for the links to other stages.
  RankPlace place() const;
  // Collective over the neighbours in other stages: how rows come from there and go there; captures
  // the graphs. seats: of all ranks of the plan.
  void link(const std::vector<HopSeat>& seats, CommChoice comm);

  const char* kind() const { return "gpu"; }
  // One step; what goes to the next stage is there or posted. message: on the last stage what Head
  // sends to the front (head.cc), head_message_bytes() of room. Throws Error for what failed on the
  // device or on a disk, and then nothing of the step has been sent from here; what other GPUs have
  // taken of it by themselves are no numbers.
  void run(const StepBatch& batch, std::byte* message);
  // Waits until the next stage has received what run() posted to it last.
  void finish();
  int64_t device_bytes() const;  // of the arenas
  int64_t host_bytes() const;    // of spilled weights and what multiplies them
  // Time that run() has spent waiting for the GPU, since the start.
  int64_t waited_ns() const;
  // What carries the stage's sums, in lines (comm_report.h); "" for a stage of one rank.
  std::string comm_report() const;
  // The links over which this rank sends.
  const std::vector<HopReport>& hop_reports() const;
  // "peer", "nccl" or "staged": what carries the sums of a decode step; "" for a stage of one rank.
  std::string sum_kind() const;

  // Tracing, for bench --profile: after everything timed, since it slows every kernel. open_trace()
  // throws Error when the GPU's tracer cannot be had. begin_trace() is collective over the stage
  // and makes the graphs anew, whose nodes the tracer would not know; end_trace() after the last
  // step.
  void open_trace();
  void begin_trace();
  StepTrace end_trace();
  bool traces() const;
  // The host has waited for other ranks since this moment of the trace's clock.
  int64_t trace_now_ns() const;
  void trace_wait(int64_t since_ns);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace spillway

// Pipeline: one rank's legs of a step: embedding on the first stage, receive, layers, send, head on
// the last stage, logits gathered on the front. The same call on every rank of the job.
//   Owns the rank's arenas, weights and executor; the mesh is the caller's and must outlive it.
//   Thread: the rank's main thread. After connect() nothing allocates, but for cuBLASLt's
//   description of a product of many rows whose shape comes for the first time (library.h).
//
// Steps in flight. Every rank runs start() for all steps in the same order and posts what it sends,
// so that stage s computes step k while stage s - 1 computes step k + 1. A rank that waits within
// step k waits for one of
//   1. the step itself, which the front posts, or its rows from the stage before: step k, earlier.
//      Between GPUs of one host (GpuHop) the stream waits for the rows and not the host;
//   2. its TP group, in the same sum of step k;
//   3. the next stage to take the rows of step k - 2, before it writes the buffer or the slot that
//      they were in: between such GPUs again the stream;
//   4. on the last stage: the front to collect the last step before k that has logits, since it
//      writes that message's bytes again;
//   5. on the front, in collect(k): the last stage to be done with step k;
//   6. on the front, before it writes the step's own bytes: all ranks to have received the step
//      S + 1 before (S stages, S + 1 buffers, see StepWire).
// Why there is no circle: let stage s of step k have the time k + s, as in a pipeline where every
// stage takes equally long, and collect(k) the time k + S - 1, after the last stage. 1 and 2 wait
// for the same or an earlier time in stages that come before, 3 for the beginning of step k - 2 in
// stage s + 1, which is earlier by one, 5 for the same time, 6 for an earlier one (at most k - 2).
// 4 waits for a collect(j), j < k, whose time is earlier too, but only if the front gets there: it
// must not start() a step of a later time first. It may start j + S - 1 (time j + S - 1) at the
// most. Hence the rule of engine.h: at most S steps are in flight, those without logits counted,
// and start(j + S) comes after collect(j). A front that collects earlier, because it has nothing to
// start, is safe: no wait of step k is for a later step. Then every wait is for something that is
// smaller by (time, step), and the smallest one of all waits for nobody.
//
// Where the stream waits nothing else changes: what a stream waits for in step k is what the host
// would have waited for, everything that the rank was asked for before step k stands before it in
// the stream, and the host waits for the stream at the end of each step, moving its posts along.
// There is one difference: so many launches may stand behind the rows of step k that the next one
// blocks the host, and then its posts stay where they are until the rows come. What it posted is
// step j < k, for the next stage or the front. Stages before it need none of that for step k: their
// rows, sums and slots (of step k - 2, which this stream has taken) do not pass through it, and the
// front, which alone waits for a later stage, has started step k before it collects. So the rows
// come, whatever is not delivered meanwhile.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "kernels/core/arena.h"
#include "kernels/cpu/ops.h"
#include "parallel/comm_choice.h"
#include "parallel/mesh.h"
#include "parallel/open_posts.h"
#include "parallel/plan.h"
#include "runtime/io/gguf.h"
#include "runtime/model/weights.h"
#include "runtime/stage/disk_weights.h"
#include "runtime/stage/executor.h"
#include "runtime/stage/gpu_executor.h"
#include "runtime/stage/head.h"
#include "runtime/stage/hidden_check.h"
#include "runtime/stage/scratch.h"
#include "runtime/stage/step_batch.h"
#include "runtime/stage/work_times.h"

namespace spillway {

class Pipeline {
 public:
  // Loads this rank's weights and reserves everything the ledger names; talks to nobody.
  // exec, model, plan and mesh must outlive it. device: the rank's GPU, used when the plan says so.
  // spill_folder: where the file of weights on disk goes, when the plan has any.
  // on_progress: loaded bytes of this rank.
  Pipeline(const Gguf& gguf, const ModelSpec& model, const Plan& plan, Mesh& mesh,
           const cpu::Exec& exec, int device, const std::string& spill_folder,
           const std::function<void(int64_t, int64_t)>& on_progress);
  ~Pipeline();
  // Collective over the plan's ranks, once before the first step, when all have loaded: connects
  // the GPUs of every stage and the stages. comm: what carries sums of GPUs; kStaged keeps the rows
  // between stages in host memory, too. Throws on a rank whose GPUs cannot be connected so; the
  // others return, and there must be no step. check: whether the ranks of a stage compare their
  // residual streams (hidden_check.h); equal on all ranks.
  void connect(CommChoice comm, HiddenCheck check = HiddenCheck::kOff);

  // This rank's legs of a step. Waits for the stage before, and for nobody to compute this step
  // after it.
  void start(const StepBatch& batch);
  // On the front: the result of the step that was started first of those not yet collected. At once
  // when it has no logits.
  void collect(const StepBatch& batch, StepResult& result);
  // One step from start to end; on the front fills `result` (may be nullptr elsewhere).
  void forward(const StepBatch& batch, StepResult* result);
  // Waits until everything that was posted has been received: after the last step, before the
  // pipeline goes. On the front when all steps have been collected.
  void finish();

  // Bytes of this rank's arenas in host memory: what the ledger promised without the program's own.
  int64_t arena_bytes() const;
  // Weights that steps read through its mapping; nullptr when none lie on disk, or on a GPU.
  const SpillFile* spill_file() const { return disk_ == nullptr ? nullptr : &disk_->file(); }
  // What carries the sums of this rank's stage, when it is several GPUs, and on the front the rows
  // of all stages, when some compute on GPUs: lines to print.
  std::string comm_report() const;
  std::string sum_kind() const { return gpu_ == nullptr ? "" : gpu_->sum_kind(); }
  // On a GPU: nanoseconds that forward() has waited for it, since the start. 0 on a CPU.
  int64_t gpu_waited_ns() const { return gpu_ == nullptr ? 0 : gpu_->waited_ns(); }
  // What the rank did in the steps between the last two calls (step_trace.h, gpu_executor.h).
  // begin_trace() is collective over the plan's ranks.
  void open_trace();
  void begin_trace();
  StepTrace end_trace();

 private:
  void load_on_cpu(const Gguf& gguf, const std::string& spill_folder,
                   const std::function<void(int64_t, int64_t)>& on_progress);
  void embed(const StepBatch& batch, View2D<float> x);
  // The legs of a rank on the CPU.
  void start_on_cpu(const StepBatch& batch);

  const cpu::Exec& exec_;
  const ModelSpec& model_;
  const Plan& plan_;
  Mesh& mesh_;
  Arena weight_arena_;
  Weights weights_;
  std::unique_ptr<DiskWeights> disk_;  // nullptr when nothing of this rank lies on disk
  Scratch scratch_;
  std::unique_ptr<StageExecutor> executor_;  // nullptr on a GPU
  std::unique_ptr<GpuExecutor> gpu_;         // nullptr on a CPU
  Head head_;
  std::array<OpenPosts, kSendBuffers> x_posts_;  // of scratch_.x
  size_t x_turn_ = 0;
  std::string hop_report_;
  HiddenHashes hashes_;  // of a stage of several CPUs
  WorkTimes times_;      // of a CPU, while it is traced
};

}  // namespace spillway

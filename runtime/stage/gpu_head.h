// GpuHead: the last stage's end of a step on a GPU: last norm, this rank's rows of the vocabulary,
// their best candidates, and the message to the front that head.cc reads.
//   Thread: the rank's main thread. Allocates nothing.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/ops.h"
#include "kernels/cuda/ops.h"
#include "parallel/plan.h"
#include "runtime/model/weights.h"
#include "runtime/stage/gpu_scratch.h"
#include "runtime/stage/step_batch.h"

namespace spillway {

class GpuHead {
 public:
  // Everything must outlive it. `exec` runs the kernels on `stream`, `cpu` what is left to the CPU.
  GpuHead(const cuda::Exec& exec, const cuda::Stream& stream, const cpu::Exec& cpu,
          const ModelSpec& model, const RankPart& part, const Weights& weights,
          GpuScratch& scratch);

  // Candidates a row that a step of this batch picks on the GPU: one of few sizes, since each has
  // a graph. All sizes, for graphs: candidate_counts().
  int64_t candidates_of(const StepBatch& batch) const;
  static constexpr int64_t kCandidateCounts[] = {0, 1, 64, cuda::kMaxCandidates};

  // Launches: the logits of these rows of the residual stream, and their k best.
  void run(View2D<const float> x, int64_t k);
  // After run() and a wait for the stream: as head.cc, for every row its candidates, or all its
  // logits, then those that are wanted. Waits for the stream when it fetches logits.
  void write_message(const StepBatch& batch, int64_t k, std::byte* out);

 private:
  void fetch_logits(int64_t first, int64_t n);

  const cuda::Exec& exec_;
  const cuda::Stream& stream_;
  const cpu::Exec& cpu_;
  const ModelSpec& model_;
  const RankPart& part_;
  const Weights& weights_;
  GpuScratch& scratch_;
};

}  // namespace spillway

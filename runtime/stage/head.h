// Head: the last norm and the vocabulary-sharded output product on the last stage's ranks, their
// best candidates gathered to the front. With a whole row asked for, the rows are gathered instead.
//   Thread: main. Allocates nothing in run() and collect().
#pragma once

#include "kernels/cpu/ops.h"
#include "parallel/mesh.h"
#include "parallel/open_posts.h"
#include "parallel/plan.h"
#include "runtime/model/weights.h"
#include "runtime/stage/scratch.h"
#include "runtime/stage/step_batch.h"

namespace spillway {

class Head {
 public:
  Head(const cpu::Exec& exec, const ModelSpec& model, const Plan& plan, Mesh& mesh,
       const Weights& weights, Scratch& scratch);

  // On the last stage: logits of the wanted rows of x, then the message to the front (kept here
  // when this rank is the front).
  void run(const StepBatch& batch, View2D<const float> x);
  // Posts the message in scratch.head_message to the front, when this rank is another; run() calls
  // it.
  void deliver(const StepBatch& batch);
  // Waits until the front has received what was delivered last: before the message is written
  // again. run() calls it.
  void finish() { posts_.finish(*mesh_.world); }
  // On the front: merges what every rank of the last stage sent. Candidates best first, equal
  // logits by smaller token first, so the order does not depend on the split.
  void collect(const StepBatch& batch, StepResult& result);

 private:
  int64_t message_bytes(const StepBatch& batch, const Range& vocab) const;
  void write_message(const StepBatch& batch, std::byte* out) const;
  void read_message(const StepBatch& batch, const Range& vocab, const std::byte* in,
                    StepResult& result);

  const cpu::Exec& exec_;
  const ModelSpec& model_;
  const Plan& plan_;
  Mesh& mesh_;
  const Weights& weights_;
  Scratch& scratch_;
  OpenPosts posts_{1};
};

}  // namespace spillway

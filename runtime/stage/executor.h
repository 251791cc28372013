// StageExecutor: runs a stage's layers over a step, in place. Kinds: cpu; gpu, streamed, hybrid
// and disk-backed come with their devices. One of the three virtual interfaces (STYLE.md).
// Thread: the rank's main thread. Allocates nothing in forward().
#pragma once

#include "kernels/core/tensor.h"
#include "runtime/stage/step_batch.h"

namespace spillway {

class StageExecutor {
 public:
  virtual ~StageExecutor() = default;

  virtual const char* kind() const = 0;
  // x [batch.n_rows(), dim]: the residual stream before and after the stage's layers. All ranks of
  // the stage call it with the same batch and the same bits of x, and end with the same bits.
  virtual void forward(const StepBatch& batch, View2D<float> x) = 0;
};

}  // namespace spillway

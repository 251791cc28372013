// CpuHalf: the feed-forward half of a layer, or some of its columns, on the CPU of a rank whose GPU
// computes the rest: cpu_layer.cc's arithmetic from a normed input to a part of the half's sum.
// Called by gpu_spill.cc; knows nothing of CUDA.
//   Owns its buffers, exactly spill_cpu_buffers(); input and output are pinned and the caller's.
//   Thread: one at a time. run() uses the rank's pool and allocates nothing.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/core/arena.h"
#include "kernels/cpu/ops.h"
#include "parallel/plan.h"
#include "runtime/model/weights.h"
#include "runtime/stage/scratch.h"

namespace spillway {

class CpuHalf {
 public:
  // pinned: memory of exactly spill_pinned_buffers(), which must outlive it.
  CpuHalf(const ModelSpec& model, const Plan& plan, int rank, const cpu::Exec& exec, Arena& pinned);

  // The most rows of a run; 0 when the rank has nothing on its CPU.
  int64_t most_rows() const { return most_rows_; }
  View2D<float> input(int64_t rows) const { return input_.view(rows, model_.dim); }
  View2D<float> output(int64_t rows) const { return {output_, rows, model_.dim}; }

  // output = Wdown (act(Wgate input) * Wup input) over the CPU's columns of this layer, the sum in
  // f64, rounded once.
  void run(const LayerWeights& w, int64_t rows) const;

  int64_t bytes() const { return arena_.bytes(); }

 private:
  const ModelSpec& model_;
  const cpu::Exec& exec_;
  int64_t most_rows_;
  Arena arena_;
  InputBuffer input_;
  float* gate_up_ = nullptr;  // [rows, 2 * columns]
  InputBuffer gated_;
  double* partial_ = nullptr;  // [rows, dim]
  float* output_ = nullptr;
};

}  // namespace spillway

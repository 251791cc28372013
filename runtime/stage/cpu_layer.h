// One transformer layer on the CPU, in two halves, each ending in a sum over the stage's ranks.
// Read it beside the papers: Touvron et al., LLaMA, 2023; for norms of heads and of what a half
// adds, windows and GELU gates: Gemma 3 Technical Report, 2025.
#pragma once

#include <span>

#include "kernels/core/kv_view.h"
#include "kernels/cpu/ops.h"
#include "parallel/communicator.h"
#include "parallel/model_spec.h"
#include "runtime/model/weights.h"
#include "runtime/stage/scratch.h"
#include "runtime/stage/work_times.h"

namespace spillway {

// What all layers of a step share.
struct CpuStep {
  const cpu::Exec& exec;
  const ModelSpec& model;
  Communicator& tp;
  Scratch& scratch;
  cpu::RopeTable rope;             // [n, n_rot/2]
  cpu::RopeTable window_rope;      // of layers with a window
  std::span<const int64_t> slots;  // where each row's key and value go
  std::span<const AttendSequence> sequences;
  WorkTimes* times = nullptr;  // told what was done
  void lap(CpuWork work) const {
    if (times != nullptr) times->lap(work);
  }
};

// x += sum over ranks of Wo attend(rope(Wq n), rope(Wk n), Wv n), n = norm(x). x [n, dim]. Heads
// are normed before rope, and the sum before it is added, when the layer has norms for them.
void attention_half(CpuStep& step, const LayerWeights& w, const KvView& kv, View2D<float> x);

// x += sum over ranks of Wdown (act(Wgate n) * Wup n), n = norm(x), act SiLU or GELU. x [n, dim].
void feed_forward_half(CpuStep& step, const LayerWeights& w, View2D<float> x);

// Whether a product with any of these matrices reads the int8 copy of its input.
bool reads_int8(std::span<const PackedMatrix> matrices);

}  // namespace spillway

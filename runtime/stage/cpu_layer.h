// One transformer layer on the CPU, in two halves, each ending in a sum over the stage's ranks.
// Read it beside the paper: Touvron et al., LLaMA, 2023.
#pragma once

#include <span>

#include "kernels/core/kv_view.h"
#include "kernels/cpu/ops.h"
#include "parallel/communicator.h"
#include "parallel/model_spec.h"
#include "runtime/model/weights.h"
#include "runtime/stage/scratch.h"

namespace spillway {

// What all layers of a step share.
struct CpuStep {
  const cpu::Exec& exec;
  const ModelSpec& model;
  Communicator& tp;
  Scratch& scratch;
  cpu::RopeTable rope;             // [n, n_rot/2]
  std::span<const int64_t> slots;  // where each row's key and value go
  std::span<const AttendSequence> sequences;
};

// x += sum over ranks of Wo attend(rope(Wq n), rope(Wk n), Wv n), n = norm(x). x [n, dim].
void attention_half(CpuStep& step, const LayerWeights& w, const KvView& kv, View2D<float> x);

// x += sum over ranks of Wdown (silu(Wgate n) * Wup n), n = norm(x). x [n, dim].
void feed_forward_half(CpuStep& step, const LayerWeights& w, View2D<float> x);

// Whether a product with any of these matrices reads the int8 copy of its input.
bool reads_int8(std::span<const PackedMatrix> matrices);

}  // namespace spillway

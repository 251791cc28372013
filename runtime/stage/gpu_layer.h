// One transformer layer on a GPU, in the two halves of cpu_layer.h and with its steps, fused where
// a kernel does several of them. Everything is launched on one stream, nothing waits: a decode
// step's layers are captured in a graph.
#pragma once

#include "kernels/cuda/ops.h"
#include "parallel/device_communicator.h"
#include "parallel/model_spec.h"
#include "runtime/model/weights.h"
#include "runtime/stage/gpu_scratch.h"

namespace spillway {

// What all layers of a step share. Pointers are device memory.
struct GpuStep {
  const cuda::Exec& exec;
  const ModelSpec& model;
  GpuScratch& scratch;
  cuda::RopeTable rope;
  cuda::RopeTable window_rope;  // of layers with a window
  const int64_t* slots;
  cuda::StepRows rows;
  DeviceCommunicator* tp = nullptr;  // of a TP group of several ranks
  // The ranks' partial sums in scratch.partial still have to be added to x: done together with the
  // norm that comes next, or by settle().
  bool pending = false;
};

// x += Wo attend(rope(Wq n), rope(Wk n), Wv n), n = norm(x). x [n, dim].
void gpu_attention_half(GpuStep& step, const LayerWeights& w, const KvView& kv, View2D<float> x);

// x += Wdown (act(Wgate n) * Wup n), n = norm(x). x [n, dim].
void gpu_feed_forward_half(GpuStep& step, const LayerWeights& w, View2D<float> x);

// Adds what is pending to x.
void settle(GpuStep& step, View2D<float> x);

}  // namespace spillway

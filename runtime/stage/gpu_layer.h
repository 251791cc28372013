// One transformer layer on a GPU, in the two halves of cpu_layer.h and with its steps, fused where
// a kernel does several of them. Everything is launched on one stream, nothing waits: a decode
// step's layers are captured in a graph. In a TP group x gets a half's sum before or in the next
// half's norm (gpu_sum.h).
#pragma once

#include "runtime/model/weights.h"
#include "runtime/stage/gpu_sum.h"

namespace spillway {

// x += Wo attend(rope(Wq n), rope(Wk n), Wv n), n = norm(x). x [n, dim].
void gpu_attention_half(GpuStep& step, const LayerWeights& w, const KvView& kv, View2D<float> x);

// x += Wdown (act(Wgate n) * Wup n), n = norm(x). x [n, dim].
void gpu_feed_forward_half(GpuStep& step, const LayerWeights& w, View2D<float> x);

}  // namespace spillway

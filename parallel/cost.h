// Cost: bytes and milliseconds of a plan on a cluster. Pure arithmetic on measured rates: bytes
// over bandwidth, operations over rate, messages by latency plus bytes over the link. Rates that a
// rank did not measure are the assumed cluster's.
#pragma once

#include "parallel/plan.h"

namespace spillway {

// Predicted time of one decode step at batch 1 with `context` tokens in the cache, and the speed of
// prefill: a prompt of min(512, kv.context) tokens, 4096 on GPUs, in steps of limits.max_rows as
// the scheduler makes them. Steps follow each other through the stages: the first fills the
// pipeline, then the slowest stage sets the pace. A prompt of one step sees no two stages at work
// at once.
//
// Decode: the halves of a layer (attention, feed-forward) end in a sum over the stage's ranks, so
// each lasts as long as its slowest rank; stages follow one another. A half lasts
// max(packed bytes / read rate, multiply-adds / product rate). On a GPU products reach a share of
// the read rate, and every kernel costs some microseconds more. Sums between GPUs of one host go
// from GPU to GPU, and so do hops between stages; between hosts, and where ranks share a GPU, they
// pass through host memory and the cluster's link.
Prediction predict(const Plan& plan, const ModelSpec& model, const ClusterSpec& cluster,
                   int64_t context);

// Weight bytes that one token reads on this rank (packed layout), head included.
int64_t weight_bytes_per_token(const Plan& plan, const ModelSpec& model, int rank);

// What the head multiplies with: the output matrix, or the embedding where that is tied to it.
const MatrixSpec& head_matrix(const ModelSpec& model);

// Bytes of one layer's matrices on a rank (packed layout): attention's four, feed-forward's three.
int64_t attention_weight_bytes(const ModelSpec& model, const LayerSpec& layer,
                               const LayerPart& part);
int64_t feed_forward_weight_bytes(const ModelSpec& model, const LayerSpec& layer,
                                  const LayerPart& part);

// Predicted milliseconds of a step of so many rows, from the plan's prediction alone.
double predicted_step_ms(const Plan& plan, int64_t rows);

}  // namespace spillway

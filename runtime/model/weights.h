// Weights: one rank's packed part of a model: views into its weight arena. Written once by
// loader.*, read by the executors. Copies of views; the arena owns the bytes.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/core/packed_matrix.h"
#include "parallel/plan.h"

namespace spillway {

struct LayerWeights {
  LayerPart part;                         // which heads and columns these are
  int64_t window = 0;                     // LayerSpec::window
  std::span<const float> attention_norm;  // [dim]
  std::array<PackedMatrix, 3> qkv;        // [heads*head_dim, dim], twice [kv_heads*head_dim, dim]
  PackedMatrix o;                         // [dim, heads*head_dim]: a partial sum
  std::span<const float> q_bias, k_bias, v_bias, o_bias;  // empty when the model has none
  std::span<const float> q_norm, k_norm;                  // [head_dim] or empty
  std::span<const float> attention_post_norm;             // [dim] or empty
  std::span<const float> feed_forward_norm;               // [dim]
  std::array<PackedMatrix, 2> gate_up;                    // [ff, dim] each
  PackedMatrix down;                                      // [dim, ff]: a partial sum
  // The CPU's columns of a hybrid half; gate_up and down are then the others.
  std::array<PackedMatrix, 2> cpu_gate_up;
  PackedMatrix cpu_down;
  std::span<const float> gate_bias, up_bias, down_bias;
  std::span<const float> feed_forward_post_norm;  // [dim] or empty
};

struct Weights {
  std::vector<LayerWeights> layers;  // of this rank's stage
  PackedMatrix embedding;            // first stage: [its vocabulary rows, dim]
  Range embedding_rows;
  PackedMatrix output;  // last stage: [its vocabulary rows, dim]
  Range output_rows;
  std::span<const float> output_norm;  // last stage: [dim]
};

}  // namespace spillway

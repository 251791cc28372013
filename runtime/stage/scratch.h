// Scratch: the activation buffers of a rank in host memory, taken once from an arena of exactly the
// ledger's bytes; executors and the head read and write them step after step. A rank on a GPU has
// only the messages here, the rest is GpuScratch's. Owns the arena.
#pragma once

#include <array>
#include <cstdint>

#include "kernels/core/arena.h"
#include "kernels/core/tensor.h"
#include "kernels/cpu/ops.h"
#include "parallel/ledger.h"
#include "parallel/plan.h"

namespace spillway {

// A product's input and room for its int8 copy. of(n, cols): the first n rows as an operand.
struct InputBuffer {
  float* x = nullptr;
  int8_t* q8 = nullptr;
  float* scale = nullptr;
  int32_t* sum = nullptr;

  View2D<float> view(int64_t n, int64_t cols) const { return {x, n, cols}; }
  cpu::Activations of(int64_t n, int64_t cols) const {
    const int64_t blocks = cols / cpu::kActivationBlock;
    return {{x, n, cols}, {q8, n, cols}, {scale, n, blocks}, {sum, n, cols / cpu::kSumBlock}};
  }
};

class Scratch {
 public:
  // Throws Error when the memory cannot be had.
  Scratch(const ModelSpec& model, const Plan& plan, int rank);

  // [max_rows, dim]: the residual stream, in turn where it is sent on, else one twice.
  std::array<View2D<float>, kSendBuffers> x;
  InputBuffer normed;                // dim wide
  float* qkv = nullptr;              // [n, (heads + 2 kv_heads) * head_dim] of the layer at hand
  InputBuffer attended;              // heads * head_dim wide
  float* gate_up = nullptr;          // [n, 2 * ff]
  InputBuffer gated;                 // ff wide
  View2D<double> partial;            // [max_rows, dim]: what is summed over ranks
  View2D<float> rope_cos, rope_sin;  // [max_rows, n_rot/2]
  View2D<float> window_rope_cos;     // the same of layers with a window, when theirs differs
  View2D<float> window_rope_sin;
  // Last stage:
  InputBuffer logit_x;   // [max_logit_rows, dim]
  View2D<float> logits;  // [max_logit_rows, its vocabulary rows]
  std::byte* head_message = nullptr;
  int64_t head_message_bytes = 0;
  // Front:
  std::byte* front_message = nullptr;
  int64_t front_message_bytes = 0;
  View2D<float> front_rows;  // [max_logit_rows, vocab_size] when whole rows may be asked for

  void freeze() { arena_.freeze(); }
  int64_t bytes() const { return arena_.bytes(); }

 private:
  void take_activations(BufferTaker& taker, const ModelSpec& model, const Plan& plan,
                        const RankPart& part);

  Arena arena_;
};

}  // namespace spillway

// GpuStepArrays: a step's tokens, positions, cache slots, sequences, logit rows and pages, side by
// side in one buffer, so that one copy takes them to the device. A decode step is laid out for its
// bucket of rows, with rows that belong to nobody at its end: they read position 0 of a real page
// and write nowhere (slot -1).
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/ops.h"
#include "runtime/stage/step_batch.h"

namespace spillway {

class GpuStepArrays {
 public:
  // For n_rows rows, n_sequences sequences and n_logit_rows rows with logits. rowwise: every row is
  // a sequence of its own to attention, over the pages of the one it belongs to.
  GpuStepArrays(int64_t n_rows, int64_t n_sequences, int64_t n_logit_rows, bool rowwise = false);
  int64_t n_sequences() const { return n_sequences_; }

  // Writes the batch to `host`, capacity bytes; returns the bytes written. page_tokens: the
  // cache's.
  int64_t fill(const StepBatch& batch, int64_t page_tokens, std::byte* host,
               int64_t capacity) const;

  // Views into a device copy of the buffer.
  const int32_t* tokens(const std::byte* base) const { return at<int32_t>(base, 0); }
  const int32_t* positions(const std::byte* base) const { return at<int32_t>(base, positions_); }
  const int64_t* slots(const std::byte* base) const { return at<int64_t>(base, slots_); }
  const cuda::SequenceRows* sequences(const std::byte* base) const {
    return at<cuda::SequenceRows>(base, sequences_);
  }
  const int32_t* logit_rows(const std::byte* base) const { return at<int32_t>(base, logit_rows_); }
  const int32_t* pages(const std::byte* base) const { return at<int32_t>(base, pages_); }

 private:
  template <typename T>
  static const T* at(const std::byte* base, int64_t offset) {
    return reinterpret_cast<const T*>(base + offset);
  }

  int64_t n_rows_;
  int64_t n_sequences_;
  bool rowwise_;
  int64_t positions_, slots_, sequences_, logit_rows_, pages_;
};

}  // namespace spillway

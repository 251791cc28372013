// See gpu_step.h.
#include "runtime/stage/gpu_step.h"

#include <algorithm>

#include "kernels/core/arena.h"
#include "kernels/core/check.h"

namespace spillway {

GpuStepArrays::GpuStepArrays(int64_t n_rows, int64_t n_sequences, int64_t n_logit_rows,
                             bool rowwise)
    : n_rows_(n_rows), n_sequences_(rowwise ? n_rows : n_sequences), rowwise_(rowwise) {
  int64_t end = 0;
  const auto place = [&end](int64_t bytes) {
    const int64_t begin = end;
    end += Arena::rounded(bytes);
    return begin;
  };
  place(4 * n_rows);
  positions_ = place(4 * n_rows);
  slots_ = place(8 * n_rows);
  sequences_ = place(static_cast<int64_t>(sizeof(cuda::SequenceRows)) * n_sequences_);
  logit_rows_ = place(4 * n_logit_rows);
  pages_ = end;
}

int64_t GpuStepArrays::fill(const StepBatch& batch, int64_t page_tokens, std::byte* host,
                            int64_t capacity) const {
  const auto n_pages = static_cast<int64_t>(batch.pages.size());
  const int64_t bytes = pages_ + 4 * std::max<int64_t>(n_pages, 1);
  CHECK_LE(bytes, capacity);
  CHECK_LE(batch.n_rows(), n_rows_);
  CHECK_LE(static_cast<int64_t>(batch.sequences.size()), n_sequences_);
  auto* tokens = reinterpret_cast<int32_t*>(host);
  auto* positions = reinterpret_cast<int32_t*>(host + positions_);
  auto* slots = reinterpret_cast<int64_t*>(host + slots_);
  auto* sequences = reinterpret_cast<cuda::SequenceRows*>(host + sequences_);
  auto* logit_rows = reinterpret_cast<int32_t*>(host + logit_rows_);
  auto* pages = reinterpret_cast<int32_t*>(host + pages_);
  pages[0] = 0;
  std::copy(batch.pages.begin(), batch.pages.end(), pages);
  std::copy(batch.tokens.begin(), batch.tokens.end(), tokens);
  int32_t row = 0;
  int32_t first_page = 0;
  for (size_t s = 0; s < batch.sequences.size(); ++s) {
    const StepSequence& sequence = batch.sequences[s];
    CHECK_LE(sequence.first_position + sequence.n_rows, sequence.n_pages * page_tokens);
    if (!rowwise_) sequences[s] = {row, sequence.n_rows, sequence.first_position, first_page};
    for (int32_t i = 0; i < sequence.n_rows; ++i, ++row) {
      const int32_t position = sequence.first_position + i;
      if (rowwise_) sequences[row] = {row, 1, position, first_page};
      const int64_t page = pages[first_page + position / page_tokens];
      positions[row] = position;
      slots[row] = page * page_tokens + position % page_tokens;
    }
    first_page += sequence.n_pages;
  }
  CHECK_EQ(row, batch.n_rows());
  for (int64_t r = row; r < n_rows_; ++r) {
    tokens[r] = 0;
    positions[r] = 0;
    slots[r] = -1;
  }
  const auto used = rowwise_ ? row : static_cast<int64_t>(batch.sequences.size());
  for (int64_t s = used; s < n_sequences_; ++s) {
    sequences[s] = {static_cast<int32_t>(s), 1, 0, 0};
  }
  for (size_t i = 0; i < batch.logit_rows.size(); ++i) logit_rows[i] = batch.logit_rows[i].row;
  return bytes;
}

}  // namespace spillway

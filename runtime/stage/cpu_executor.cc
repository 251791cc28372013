// See cpu_executor.h.
#include "runtime/stage/cpu_executor.h"

#include "kernels/core/check.h"
#include "runtime/stage/cpu_layer.h"

namespace spillway {

CpuExecutor::CpuExecutor(const cpu::Exec& exec, const ModelSpec& model, const Plan& plan, int rank,
                         const Weights& weights, DiskWeights* disk, Scratch& scratch,
                         Communicator& tp, HiddenHashes& hashes, WorkTimes* times)
    : exec_(exec),
      model_(model),
      weights_(weights),
      disk_(disk),
      scratch_(scratch),
      tp_(tp),
      hashes_(hashes),
      times_(times),
      kv_(model, plan, rank),
      page_tokens_(plan.kv.page_tokens),
      rope_(model.rope) {
  if (model.window_rope) window_rope_.emplace(*model.window_rope);
  positions_.reserve(static_cast<size_t>(plan.limits.max_rows));
  slots_.reserve(static_cast<size_t>(plan.limits.max_rows));
  sequences_.reserve(static_cast<size_t>(plan.limits.max_sequences));
  kv_.freeze();
}

void CpuExecutor::prepare(const StepBatch& batch) {
  positions_.clear();
  slots_.clear();
  sequences_.clear();
  int64_t first_row = 0;
  const int32_t* pages = batch.pages.data();
  for (const StepSequence& sequence : batch.sequences) {
    CHECK_LE(sequence.first_position + sequence.n_rows, sequence.n_pages * page_tokens_);
    for (int32_t i = 0; i < sequence.n_rows; ++i) {
      const int32_t position = sequence.first_position + i;
      positions_.push_back(position);
      slots_.push_back(pages[position / page_tokens_] * page_tokens_ + position % page_tokens_);
    }
    sequences_.push_back({first_row, sequence.n_rows, sequence.first_position, pages});
    first_row += sequence.n_rows;
    pages += sequence.n_pages;
  }
  CHECK_EQ(first_row, batch.n_rows());
}

const LayerWeights& CpuExecutor::fetch(size_t layer, Half half) {
  if (disk_ == nullptr) return weights_.layers[layer];
  const LayerWeights& fetched = disk_->fetch(layer, half);
  if (times_ != nullptr) times_->lap(CpuWork::kDisk);
  return fetched;
}

void CpuExecutor::done(size_t layer, Half half) {
  if (disk_ == nullptr) return;
  if (times_ != nullptr) times_->lap(CpuWork::kOther);
  disk_->done(layer, half);
}

void CpuExecutor::hash(int64_t point, View2D<const float> x) {
  if (!hashes_.take(point)) return;
  hashes_.values()[static_cast<size_t>(point)] = cpu::hash_rows(exec_, x);
}

void CpuExecutor::forward(const StepBatch& batch, View2D<float> x) {
  prepare(batch);
  const int64_t n = batch.n_rows();
  const View2D<float> cos = scratch_.rope_cos.head_rows(n);
  const View2D<float> sin = scratch_.rope_sin.head_rows(n);
  rope_.fill(positions_, cos, sin);
  const cpu::RopeTable rope{cos, sin};
  cpu::RopeTable window_rope = rope;
  if (window_rope_) {
    const View2D<float> window_cos = scratch_.window_rope_cos.head_rows(n);
    const View2D<float> window_sin = scratch_.window_rope_sin.head_rows(n);
    window_rope_->fill(positions_, window_cos, window_sin);
    window_rope = {window_cos, window_sin};
  }
  CpuStep step{exec_, model_, tp_, scratch_, rope, window_rope, slots_, sequences_, times_};
  hashes_.begin();
  hash(0, x);
  for (size_t i = 0; i < weights_.layers.size(); ++i) {
    const auto layer = static_cast<int64_t>(i);
    attention_half(step, fetch(i, Half::kAttention), kv_.layer(layer), x);
    done(i, Half::kAttention);
    hash(2 * layer + 1, x);
    feed_forward_half(step, fetch(i, Half::kFeedForward), x);
    done(i, Half::kFeedForward);
    hash(2 * layer + 2, x);
  }
}

}  // namespace spillway

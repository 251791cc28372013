// See disk_weights.h.
#include "runtime/stage/disk_weights.h"

namespace spillway {

void DiskWeights::start(const Weights& weights) {
  layers_ = weights.layers;
  halves_.start(weights);
}

const LayerWeights& DiskWeights::fetch(size_t layer, Half half) {
  const LayerWeights& stored = layers_[layer];
  if (place_of_half(stored.part, half) != Place::kDisk) return stored;
  const std::byte* from = halves_.stored(next_).data();
  std::byte* to = const_cast<std::byte*>(halves_.wait());
  fetched_ = stored;
  const auto move = [from, to](PackedMatrix& w) { w.data = to + (w.data - from); };
  if (half == Half::kAttention) {
    for (PackedMatrix& w : fetched_.qkv) move(w);
    move(fetched_.o);
  } else {
    for (PackedMatrix& w : fetched_.gate_up) move(w);
    move(fetched_.down);
  }
  return fetched_;
}

void DiskWeights::done(size_t layer, Half half) {
  if (place_of_half(layers_[layer].part, half) != Place::kDisk) return;
  halves_.release();
  next_ = (next_ + 1) % halves_.size();
}

}  // namespace spillway

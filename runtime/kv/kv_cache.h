// KvCache: this rank's keys and values: for every layer of its stage, pages of its KV heads, in an
// arena of exactly the ledger's bytes. Owns the arena.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/core/arena.h"
#include "kernels/core/kv_view.h"
#include "parallel/plan.h"

namespace spillway {

// The views of every layer of this rank's stage, taken from an arena of the ledger's KV bytes, in
// host memory or a device's.
std::vector<KvView> take_kv_views(const ModelSpec& model, const Plan& plan, int rank, Arena& arena);

class KvCache {
 public:
  // Throws Error when the memory cannot be had.
  KvCache(const ModelSpec& model, const Plan& plan, int rank);

  // Layer `index` of the stage, counted from 0.
  const KvView& layer(int64_t index) const { return layers_[static_cast<size_t>(index)]; }
  int64_t bytes() const { return arena_.bytes(); }
  void freeze() { arena_.freeze(); }

 private:
  Arena arena_;
  std::vector<KvView> layers_;
};

}  // namespace spillway

// DiskWeights: the halves on disk of a rank on a CPU, as its layers ask for them: read ahead, or
// used as they lie in the page cache.
//   Thread: the rank's main thread. After start() nothing allocates.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/stage/disk_halves.h"

namespace spillway {

class DiskWeights {
 public:
  // As DiskHalves'.
  DiskWeights(const cpu::Exec& exec, const ModelSpec& model, const Plan& plan, int rank,
              const std::string& folder)
      : halves_(exec, model, plan, rank, folder, InCache::kMapped) {}
  DiskWeights(DiskWeights&&) = delete;

  // For load_weights(), before start().
  WeightTarget target() const { return halves_.target(); }
  // The loaded layers, whose matrices on disk are addresses of target()'s arena; copied.
  void start(const Weights& weights);

  // The layer with the matrices of this half in memory, until done(). Every step asks for all
  // halves, in order. Halves that lie elsewhere cost nothing. Throws Error when it cannot be read.
  const LayerWeights& fetch(size_t layer, Half half);
  void done(size_t layer, Half half);

  int64_t bytes() const { return halves_.bytes(); }  // of host memory
  const SpillFile& file() const { return halves_.file(); }

 private:
  DiskHalves halves_;
  std::vector<LayerWeights> layers_;
  size_t next_ = 0;       // half of the step
  LayerWeights fetched_;  // in memory
};

}  // namespace spillway

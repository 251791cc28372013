// DiskWeights: the halves of a rank on a CPU that lie on disk. While loading their matrices are
// packed and written to a spill file; from then on they are read ahead, half by half in the order
// of a step, into slots of host memory; those that the page cache holds are used as they lie there.
//   Owns the file, the slots (the ledger's "disk slots") and the reading threads.
//   Thread: the rank's main thread. After start() nothing allocates.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "kernels/cpu/ops.h"
#include "parallel/spill.h"
#include "runtime/io/read_ahead.h"
#include "runtime/model/loader.h"

namespace spillway {

class DiskWeights {
 public:
  // For a rank with halves on disk. folder: where the file lies. Throws Error when there is no room
  // for the file or the slots.
  DiskWeights(const cpu::Exec& exec, const ModelSpec& model, const Plan& plan, int rank,
              const std::string& folder);
  ~DiskWeights();
  DiskWeights(DiskWeights&&) = delete;

  // For load_weights(), before start().
  WeightTarget target() const { return {&writer_, addresses_.get()}; }
  // The loaded layers, whose matrices on disk are addresses of target()'s arena; copied.
  void start(const Weights& weights);

  // The layer with the matrices of this half in memory, until done(). Every step asks for all
  // halves, in order. Halves that lie elsewhere cost nothing.
  const LayerWeights& fetch(size_t layer, Half half);
  void done(size_t layer, Half half);

  int64_t bytes() const { return slots_.bytes(); }  // of host memory
  const SpillFile& file() const { return file_; }

 private:
  struct Reserved;  // addresses without memory

  void write(const cpu::Exec& exec, const cpu::GgufMatrix& source, Range rows, Range cols,
             const PackedMatrix& out);

  const Plan& plan_;
  const RankPart& part_;
  SpillFile file_;
  Arena slots_;
  std::vector<std::byte*> slot_bases_;
  std::unique_ptr<Reserved> reserved_;
  std::unique_ptr<Arena> addresses_;
  WeightWriter writer_;
  std::vector<LayerWeights> layers_;
  std::vector<FilePiece> pieces_;
  size_t piece_ = 0;      // of the step
  LayerWeights fetched_;  // in memory
  std::unique_ptr<ReadAhead> reader_;
};

}  // namespace spillway

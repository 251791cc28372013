// CpuExecutor: a stage whose layers lie in host memory, or on disk, and run on this rank's thread
// pool.
//   Owns its KV cache. Weights, scratch, communicator and hashes are the caller's and must outlive
//   it. forward() leaves the step's hashes in `hashes`, when they are on.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "kernels/cpu/ops.h"
#include "parallel/communicator.h"
#include "runtime/kv/kv_cache.h"
#include "runtime/model/weights.h"
#include "runtime/stage/disk_weights.h"
#include "runtime/stage/executor.h"
#include "runtime/stage/hidden_check.h"
#include "runtime/stage/rope_table.h"
#include "runtime/stage/scratch.h"
#include "runtime/stage/work_times.h"

namespace spillway {

class CpuExecutor : public StageExecutor {
 public:
  // disk: the halves that lie there, started; nullptr when there are none. times: told where the
  // time of steps goes, unless nullptr.
  CpuExecutor(const cpu::Exec& exec, const ModelSpec& model, const Plan& plan, int rank,
              const Weights& weights, DiskWeights* disk, Scratch& scratch, Communicator& tp,
              HiddenHashes& hashes, WorkTimes* times = nullptr);

  const char* kind() const override { return disk_ == nullptr ? "cpu" : "disk"; }
  void forward(const StepBatch& batch, View2D<float> x) override;

 private:
  // Positions, cache slots and page lists of the step's rows.
  void prepare(const StepBatch& batch);
  // The layer with this half's matrices in memory, until done().
  const LayerWeights& fetch(size_t layer, Half half);
  void done(size_t layer, Half half);
  void hash(int64_t point, View2D<const float> x);

  const cpu::Exec& exec_;
  const ModelSpec& model_;
  const Weights& weights_;
  DiskWeights* disk_;
  Scratch& scratch_;
  Communicator& tp_;
  HiddenHashes& hashes_;
  WorkTimes* times_;
  KvCache kv_;
  int64_t page_tokens_;
  RopeFrequencies rope_;
  std::optional<RopeFrequencies> window_rope_;  // when layers with a window turn otherwise
  std::vector<int32_t> positions_;
  std::vector<int64_t> slots_;
  std::vector<AttendSequence> sequences_;
};

}  // namespace spillway

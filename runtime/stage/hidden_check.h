// --check-hidden: do all ranks of a stage hold the same bits of the residual stream? A hash of the
// step's rows is taken after every sum over the ranks, or once at the end of the stage's layers,
// and compared between the ranks at the end of the step. Off it costs nothing.
//   Thread: the rank's main thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "parallel/communicator.h"
#include "parallel/plan.h"

namespace spillway {

enum class HiddenCheck { kOff, kStage, kSums };

// The hashes of a step. Point 0 is the stream as it enters the stage, 2i + 1 what it is after the
// attention of the stage's layer i, 2i + 2 after its feed-forward part.
class HiddenHashes {
 public:
  HiddenHashes() = default;                                        // off
  HiddenHashes(HiddenCheck where, int64_t n_layers, int n_ranks);  // of the stage

  bool on() const { return where_ != HiddenCheck::kOff; }
  HiddenCheck where() const { return where_; }
  int64_t last_point() const { return static_cast<int64_t>(values_.size()) - 1; }
  // A step begins: no point has been taken.
  void begin();
  // Whether the stream is to be hashed here: asked for, and beyond the last point taken, which this
  // one then is.
  bool take(int64_t point);
  std::span<uint64_t> values() { return values_; }
  // Room for every rank's, one rank after the other.
  std::span<uint64_t> all() { return all_; }

 private:
  HiddenCheck where_ = HiddenCheck::kOff;
  std::vector<uint64_t> values_;  // 0 where none was taken
  std::vector<uint64_t> all_;
  int64_t next_ = 0;
};

// all: every rank's values, one rank after the other in TP order. The first point at which they
// differ, as Error("rank 2 holds ...", "step 7, after the attention of layer 3", ...), if there is
// one. Ranks are named that differ from most, at equal numbers from the first.
std::optional<Error> hidden_difference(const StagePlan& stage, HiddenCheck where, int64_t step,
                                       std::span<const uint64_t> all);

// Collective over a stage's group. On a difference its first rank throws the Error above, and the
// others wait for the end of the job, which is near: one rank speaks for all. Else allocates
// nothing.
void compare_hidden(Communicator& group, const StagePlan& stage, int64_t step, HiddenHashes& mine);

}  // namespace spillway

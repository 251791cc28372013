// StepBatch: what one step computes, the same on every rank: made by the scheduler on the front,
// posted to all (engine/step_wire.*), run by Pipeline::start. StepResult: what comes back to the
// front. Both keep their memory from step to step.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cpu/ops.h"
#include "parallel/plan.h"

namespace spillway {

enum class StepKind : int32_t { kForward = 0, kStop = 1 };

// n_rows rows of the step, in order, are this sequence's positions first_position, ...
struct StepSequence {
  int32_t slot = 0;
  int32_t n_rows = 0;
  int32_t n_pages = 0;  // of StepBatch::pages, in order
  int32_t first_position = 0;
};

// A row whose logits are wanted.
struct LogitRow {
  int32_t row = 0;
  int32_t n_candidates = 0;  // the best so many; 0: the whole row
  int32_t n_wanted = 0;      // of StepBatch::wanted, in order: logits of these tokens as well
};

struct StepBatch {
  int64_t number = 0;
  StepKind kind = StepKind::kForward;
  std::vector<int32_t> tokens;  // one a row
  std::vector<StepSequence> sequences;
  std::vector<int32_t> pages;
  std::vector<LogitRow> logit_rows;  // rows ascending
  std::vector<int32_t> wanted;

  explicit StepBatch(const StepLimits& limits, int64_t n_pages);
  void clear();
  int64_t n_rows() const { return static_cast<int64_t>(tokens.size()); }
};

struct RowResult {
  std::vector<cpu::Candidate> candidates;  // best first; empty when the whole row was asked for
  std::vector<float> wanted;               // in the order of the batch
  std::span<const float> whole;            // [vocab_size] or empty; valid until the next step
};

struct StepResult {
  std::vector<RowResult> rows;  // as StepBatch::logit_rows
  int64_t n_rows = 0;

  StepResult(const StepLimits& limits, int64_t last_stage_ranks);
};

}  // namespace spillway

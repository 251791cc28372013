// See step_batch.h.
#include "runtime/stage/step_batch.h"

namespace spillway {

StepBatch::StepBatch(const StepLimits& limits, int64_t n_pages) {
  tokens.reserve(static_cast<size_t>(limits.max_rows));
  sequences.reserve(static_cast<size_t>(limits.max_sequences));
  pages.reserve(static_cast<size_t>(n_pages));
  logit_rows.reserve(static_cast<size_t>(limits.max_logit_rows));
  wanted.reserve(static_cast<size_t>(limits.max_logit_rows * limits.max_wanted));
}

void StepBatch::clear() {
  kind = StepKind::kForward;
  tokens.clear();
  sequences.clear();
  pages.clear();
  logit_rows.clear();
  wanted.clear();
}

StepResult::StepResult(const StepLimits& limits, int64_t last_stage_ranks)
    : rows(static_cast<size_t>(limits.max_logit_rows)) {
  for (RowResult& row : rows) {
    row.candidates.reserve(static_cast<size_t>(limits.max_candidates * last_stage_ranks));
    row.wanted.reserve(static_cast<size_t>(limits.max_wanted));
  }
}

}  // namespace spillway

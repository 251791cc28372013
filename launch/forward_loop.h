// ForwardLoop: steps made by hand for verify, bench and perplexity, without scheduler and sampler:
// one sequence, positions from 0, logits of the last rows when wanted.
#pragma once

#include <cstdint>
#include <span>

#include "runtime/engine/engine.h"

namespace spillway {

class ForwardLoop {
 public:
  ForwardLoop(const Plan& plan, Engine& engine)
      : plan_(plan), engine_(engine), batch_(plan.limits, plan.kv.n_pages) {}

  // The next tokens of the sequence, in chunks of at most chunk_rows (0: the plan's max_rows).
  // n_candidates: of the last token; 0: the whole row; -1: no logits. The result of the last chunk.
  const StepResult& feed(std::span<const int32_t> tokens, int32_t n_candidates,
                         int64_t chunk_rows = 0);
  // The next tokens in one step (at most the plan's max_rows), with the whole rows of logits of the
  // last n_logit_rows of them (at most the plan's max_logit_rows).
  const StepResult& step(std::span<const int32_t> tokens, int64_t n_logit_rows);
  void restart() { position_ = 0; }

 private:
  const StepResult& run(std::span<const int32_t> tokens, int64_t n_logit_rows,
                        int32_t n_candidates);

  const Plan& plan_;
  Engine& engine_;
  StepBatch batch_;
  int64_t position_ = 0;
  int64_t step_ = 0;
};

}  // namespace spillway

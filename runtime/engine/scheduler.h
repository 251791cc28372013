// Scheduler: which rows the next step computes. Decoding sequences give one row each, what is left
// of max_rows goes to prompts, in chunks, oldest first. The only scheduler of the job: followers
// do as the step says. Thread: the engine's. Bounded: submit() says no when the queue is full.
//   Steps in flight: next() may be called again before commit(), once for each of the plan's S
//   stages. A sequence whose next token is still to come has no rows in further steps, and a step
//   takes at most ceil(decoding / S) decoding sequences, so that each of the S steps has its group;
//   those that were longest without a step go first. Chunks of a prompt wait for nothing: every
//   stage runs the steps in order, so an earlier chunk's keys are there when the next one comes.
//   For the same reason pages and slots of a sequence that ends are free at once.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "parallel/plan.h"
#include "runtime/engine/request.h"
#include "runtime/engine/sampler.h"
#include "runtime/kv/page_table.h"
#include "runtime/stage/step_batch.h"

namespace spillway {

struct Sequence {
  Request request;
  Sampler sampler;
  std::vector<int32_t> tokens;  // prompt and what was drawn
  int64_t cached = 0;           // tokens whose keys and values are in the cache
  int64_t new_tokens = 0;
  int32_t slot = -1;
  int64_t last_step = -1;  // the last one with rows of it
  int64_t last_turn = -1;  // which of all sequences' turns it had there
  int32_t logit_row = -1;  // index into its logit_rows while its token is still to come

  int64_t uncached() const { return static_cast<int64_t>(tokens.size()) - cached; }

  Sequence(Request r, int64_t vocab_size, const StepLimits& limits);
};

class Scheduler {
 public:
  Scheduler(const Plan& plan, int64_t vocab_size, int64_t queue_capacity);

  // "" when the request was taken; else why not ("the prompt has 5000 tokens, the context is
  // 4096"; "the queue is full").
  std::string submit(Request request);
  bool idle() const { return waiting_.empty() && running_.empty(); }
  int64_t running() const { return static_cast<int64_t>(running_.size()); }
  int64_t waiting() const { return static_cast<int64_t>(waiting_.size()); }

  // Fills the next step; false when there is nothing to do before a step in flight is committed.
  bool next(StepBatch& batch);
  // Draws the tokens of a step that next() made, tells the sinks, retires what is done. In the
  // order of the steps; sequences that have ended meanwhile are left out.
  void commit(const StepBatch& batch, const StepResult& result);
  // Ends every sequence with this reason.
  void finish_all(FinishReason reason, const std::string& message);

  int64_t prompt_tokens_done() const { return prompt_tokens_done_; }
  int64_t new_tokens_done() const { return new_tokens_done_; }

 private:
  void drop_cancelled();
  void admit();
  void add_decoding(StepBatch& batch);
  bool room_for_logits(const StepBatch& batch) const;
  void add_rows(StepBatch& batch, Sequence& sequence, int64_t n);
  // Whether the sequence goes on after this token.
  bool take_token(Sequence& sequence, int32_t token);
  void retire(Sequence& sequence, FinishReason reason, const std::string& message);

  const Plan& plan_;
  int64_t vocab_size_;
  size_t queue_capacity_;
  PageTable pages_;
  std::vector<int32_t> free_slots_;
  std::deque<std::unique_ptr<Sequence>> waiting_;
  std::vector<std::unique_ptr<Sequence>> running_;  // in order of arrival
  int64_t step_ = 0;
  int64_t turn_ = 0;
  int64_t prompt_tokens_done_ = 0;
  int64_t new_tokens_done_ = 0;
};

}  // namespace spillway

// ParallelLoop: decode steps of several sequences at once, made by hand for bench: every sequence
// has its own pages, all are equally long, tokens are random. With several pipeline stages the
// sequences are divided into as many groups, each with a step of its own in flight, as the
// scheduler does it.
#pragma once

#include <cstdint>
#include <random>

#include "runtime/engine/engine.h"

namespace spillway {

class ParallelLoop {
 public:
  // n_sequences times `tokens` tokens must fit the plan's cache.
  ParallelLoop(const Plan& plan, Engine& engine, int64_t vocab_size, int64_t n_sequences,
               int64_t tokens);

  // Empties all sequences and reads `depth` tokens into each.
  void restart(int64_t depth);
  // Starts one more token for every sequence, asks for the best candidate of each. A group's step
  // comes after the result of its last one.
  void step();
  // Waits for all steps.
  void finish();

 private:
  void add(int64_t sequence, int64_t n_rows, bool with_logits);

  const Plan& plan_;
  Engine& engine_;
  int64_t vocab_size_;
  int64_t n_sequences_;
  int64_t pages_each_;
  StepBatch batch_;
  std::mt19937 random_{1};
  int64_t length_ = 0;
  int64_t number_ = 0;
};

}  // namespace spillway

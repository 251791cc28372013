// See parallel_loop.h.
#include "launch/parallel_loop.h"

#include <algorithm>

#include "kernels/core/check.h"
#include "kernels/core/int_math.h"

namespace spillway {

ParallelLoop::ParallelLoop(const Plan& plan, Engine& engine, int64_t vocab_size,
                           int64_t n_sequences, int64_t tokens)
    : plan_(plan),
      engine_(engine),
      vocab_size_(vocab_size),
      n_sequences_(n_sequences),
      pages_each_(div_up(tokens, plan.kv.page_tokens)),
      batch_(plan.limits, plan.kv.n_pages) {
  CHECK_LE(pages_each_ * n_sequences, plan.kv.n_pages);
  CHECK_LE(n_sequences, plan.limits.max_sequences);
}

void ParallelLoop::add(int64_t sequence, int64_t n_rows, bool with_logits) {
  for (int64_t i = 0; i < n_rows; ++i) {
    batch_.tokens.push_back(static_cast<int32_t>(random_() % static_cast<uint32_t>(vocab_size_)));
  }
  const int64_t n_pages = div_up(length_ + n_rows, plan_.kv.page_tokens);
  CHECK_LE(n_pages, pages_each_);
  for (int64_t page = 0; page < n_pages; ++page) {
    batch_.pages.push_back(static_cast<int32_t>(sequence * pages_each_ + page));
  }
  batch_.sequences.push_back({static_cast<int32_t>(sequence), static_cast<int32_t>(n_rows),
                              static_cast<int32_t>(n_pages), static_cast<int32_t>(length_)});
  if (with_logits) {
    batch_.logit_rows.push_back({static_cast<int32_t>(batch_.n_rows()) - 1, 1, 0});
  }
}

void ParallelLoop::restart(int64_t depth) {
  finish();
  for (length_ = 0; length_ < depth;) {
    const int64_t n = std::min(depth - length_, plan_.limits.max_rows);
    for (int64_t s = 0; s < n_sequences_; ++s) {
      batch_.clear();
      batch_.number = number_++;
      add(s, n, false);
      engine_.forward(batch_);
    }
    length_ += n;
  }
}

void ParallelLoop::step() {
  const int64_t groups = std::min(engine_.most_in_flight(), n_sequences_);
  for (int64_t group = 0; group < groups; ++group) {
    if (engine_.in_flight() == groups) engine_.collect();
    batch_.clear();
    batch_.number = number_++;
    const int64_t end = n_sequences_ * (group + 1) / groups;
    for (int64_t s = n_sequences_ * group / groups; s < end; ++s) add(s, 1, true);
    engine_.start(batch_);
  }
  ++length_;
}

void ParallelLoop::finish() {
  while (engine_.in_flight() > 0) engine_.collect();
}

}  // namespace spillway

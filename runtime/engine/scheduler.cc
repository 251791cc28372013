// See scheduler.h.
#include "runtime/engine/scheduler.h"

#include <algorithm>
#include <utility>

#include "kernels/core/check.h"
#include "parallel/size_text.h"

namespace spillway {

const char* finish_reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kContext:
      return "context full";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kError:
      return "error";
  }
  return "unknown";
}

Sequence::Sequence(Request r, int64_t vocab_size, const StepLimits& limits)
    : request(std::move(r)), sampler(request.sampling, vocab_size, limits) {
  tokens = request.prompt;
  tokens.reserve(request.prompt.size() +
                 static_cast<size_t>(std::min<int64_t>(request.max_new_tokens, 1 << 20)));
  for (const int32_t token : tokens) sampler.accept(token);
}

Scheduler::Scheduler(const Plan& plan, int64_t vocab_size, int64_t queue_capacity)
    : plan_(plan),
      vocab_size_(vocab_size),
      queue_capacity_(static_cast<size_t>(queue_capacity)),
      pages_(plan.kv.n_pages, plan.kv.page_tokens, plan.limits.max_sequences) {
  for (int64_t slot = plan.limits.max_sequences - 1; slot >= 0; --slot) {
    free_slots_.push_back(static_cast<int32_t>(slot));
  }
}

std::string Scheduler::submit(Request request) {
  const auto n_prompt = static_cast<int64_t>(request.prompt.size());
  if (n_prompt == 0) return "the prompt is empty";
  if (n_prompt >= plan_.kv.context) {
    return "the prompt has " + count_text(n_prompt, "token") + ", the context is " +
           std::to_string(plan_.kv.context) + " (use -c or a shorter prompt)";
  }
  for (const int32_t token : request.prompt) {
    if (token < 0 || token >= vocab_size_) {
      return "token " + std::to_string(token) + " is not in the vocabulary";
    }
  }
  if (request.max_new_tokens < 0) return "the number of new tokens is negative";
  const std::string reason = check_sampling(request.sampling, vocab_size_, plan_.limits);
  if (!reason.empty()) return reason;
  if (waiting_.size() >= queue_capacity_) {
    return "the queue is full (" + std::to_string(queue_capacity_) + " requests wait)";
  }
  CHECK(request.sink != nullptr);
  waiting_.push_back(std::make_unique<Sequence>(std::move(request), vocab_size_, plan_.limits));
  return "";
}

void Scheduler::drop_cancelled() {
  const auto drop = [this](std::unique_ptr<Sequence>& sequence) {
    const std::atomic<bool>* cancelled = sequence->request.cancelled;
    if (cancelled == nullptr || !*cancelled) return;
    retire(*sequence, FinishReason::kCancelled, "");
    sequence.reset();
  };
  std::for_each(waiting_.begin(), waiting_.end(), drop);
  std::erase(waiting_, nullptr);
  std::for_each(running_.begin(), running_.end(), drop);
  std::erase(running_, nullptr);
}

void Scheduler::admit() {
  while (!waiting_.empty() && !free_slots_.empty()) {
    Sequence& sequence = *waiting_.front();
    // Room for all that the sequence may become, so that it never has to be thrown out later. Both
    // summands are at most the context: the sum cannot overflow.
    const int64_t most = std::min(static_cast<int64_t>(sequence.tokens.size()) +
                                      std::min(sequence.request.max_new_tokens, plan_.kv.context),
                                  plan_.kv.context);
    if (!pages_.reserve(free_slots_.back(), most)) return;
    sequence.slot = free_slots_.back();
    free_slots_.pop_back();
    running_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
}

void Scheduler::add_rows(StepBatch& batch, Sequence& sequence, int64_t n) {
  const std::span<const int32_t> pages = pages_.pages(sequence.slot);
  const int64_t used = div_up(sequence.cached + n, plan_.kv.page_tokens);
  batch.sequences.push_back({sequence.slot, static_cast<int32_t>(n), static_cast<int32_t>(used),
                             static_cast<int32_t>(sequence.cached)});
  batch.pages.insert(batch.pages.end(), pages.begin(), pages.begin() + used);
  const auto first = sequence.tokens.begin() + sequence.cached;
  batch.tokens.insert(batch.tokens.end(), first, first + n);
  const auto n_prompt = static_cast<int64_t>(sequence.request.prompt.size());
  prompt_tokens_done_ += std::max<int64_t>(0, std::min(n, n_prompt - sequence.cached));
  sequence.cached += n;
  sequence.last_step = batch.number;
  sequence.last_turn = turn_++;
  if (sequence.uncached() == 0) {
    sequence.logit_row = static_cast<int32_t>(batch.logit_rows.size());
    batch.logit_rows.push_back(
        sequence.sampler.ask(static_cast<int32_t>(batch.n_rows()) - 1, batch.wanted));
  }
}

bool Scheduler::room_for_logits(const StepBatch& batch) const {
  return static_cast<int64_t>(batch.logit_rows.size()) < plan_.limits.max_logit_rows;
}

void Scheduler::add_decoding(StepBatch& batch) {
  int64_t decoding = 0;
  for (const auto& sequence : running_) decoding += sequence->uncached() <= 1 ? 1 : 0;
  int64_t most = div_up(decoding, static_cast<int64_t>(plan_.stages.size()));
  for (; most > 0 && batch.n_rows() < plan_.limits.max_rows && room_for_logits(batch); --most) {
    Sequence* longest = nullptr;  // without a step
    for (const auto& sequence : running_) {
      if (sequence->uncached() != 1) continue;
      if (longest == nullptr || sequence->last_turn < longest->last_turn) longest = sequence.get();
    }
    if (longest == nullptr) return;
    add_rows(batch, *longest, 1);
  }
}

bool Scheduler::next(StepBatch& batch) {
  drop_cancelled();
  admit();
  batch.clear();
  batch.number = step_++;
  // Decoding sequences first: one row each keeps their tokens coming while prompts are read.
  add_decoding(batch);
  for (const auto& sequence : running_) {
    const int64_t left = sequence->uncached();
    const int64_t room = plan_.limits.max_rows - batch.n_rows();
    if (left <= 1 || room <= 0) continue;
    // The prompt's last row brings logits: without room for them it waits for the next step.
    add_rows(batch, *sequence, std::min(room_for_logits(batch) ? left : left - 1, room));
  }
  if (batch.n_rows() == 0) --step_;
  return batch.n_rows() > 0;
}

void Scheduler::commit(const StepBatch& batch, const StepResult& result) {
  CHECK_EQ(result.n_rows, static_cast<int64_t>(batch.logit_rows.size()));
  for (auto& sequence : running_) {
    if (sequence->logit_row < 0 || sequence->last_step != batch.number) continue;
    const auto row = static_cast<size_t>(std::exchange(sequence->logit_row, -1));
    size_t wanted_begin = 0;
    for (size_t i = 0; i < row; ++i) {
      wanted_begin += static_cast<size_t>(batch.logit_rows[i].n_wanted);
    }
    const std::span<const int32_t> wanted(batch.wanted.data() + wanted_begin,
                                          static_cast<size_t>(batch.logit_rows[row].n_wanted));
    const int32_t token = sequence->sampler.sample(result.rows[row], wanted);
    if (!take_token(*sequence, token)) sequence.reset();
  }
  std::erase(running_, nullptr);
}

bool Scheduler::take_token(Sequence& sequence, int32_t token) {
  const Request& request = sequence.request;
  const auto& ends = request.end_tokens;
  if (request.max_new_tokens == 0) {
    retire(sequence, FinishReason::kLength, "");
    return false;
  }
  if (std::find(ends.begin(), ends.end(), token) != ends.end()) {
    retire(sequence, FinishReason::kStop, "");
    return false;
  }
  sequence.tokens.push_back(token);
  sequence.sampler.accept(token);
  ++sequence.new_tokens;
  ++new_tokens_done_;
  if (!request.sink->on_token(token)) {
    retire(sequence, FinishReason::kCancelled, "");
    return false;
  }
  if (sequence.new_tokens >= request.max_new_tokens) {
    retire(sequence, FinishReason::kLength, "");
    return false;
  }
  if (static_cast<int64_t>(sequence.tokens.size()) >= plan_.kv.context) {
    retire(sequence, FinishReason::kContext, "");
    return false;
  }
  return true;
}

void Scheduler::retire(Sequence& sequence, FinishReason reason, const std::string& message) {
  if (sequence.slot >= 0) {
    pages_.release(sequence.slot);
    free_slots_.push_back(sequence.slot);
    sequence.slot = -1;
  }
  sequence.request.sink->on_finish(reason, message);
}

void Scheduler::finish_all(FinishReason reason, const std::string& message) {
  for (auto& sequence : running_) {
    // commit() leaves a gap where it was interrupted by a sink that threw.
    if (sequence != nullptr) retire(*sequence, reason, message);
  }
  running_.clear();
  for (auto& sequence : waiting_) retire(*sequence, reason, message);
  waiting_.clear();
}

}  // namespace spillway

// PagedEcho: a stand-in for the pipeline in scheduler tests. It stores the step's tokens in pages,
// reads a row's whole past back through the step's page list, and answers with a hash of it: a page
// given twice, a lost row or a wrong position changes the text. Checks every step against the
// plan's limits. EchoSink: a TokenSink that remembers.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "runtime/engine/request.h"
#include "runtime/stage/step_batch.h"

namespace spillway::testing {

inline constexpr int32_t kEchoVocab = 1000;

// The token that follows `past`; and the whole text that a greedy request must get.
inline int32_t echo_next(const std::vector<int32_t>& past) {
  uint32_t hash = 2166136261U;
  for (const int32_t token : past) hash = (hash ^ static_cast<uint32_t>(token)) * 16777619U;
  return static_cast<int32_t>((hash >> 8) % kEchoVocab);
}
inline std::vector<int32_t> echo_text(std::vector<int32_t> past, int64_t n) {
  std::vector<int32_t> text;
  for (int64_t i = 0; i < n; ++i) {
    text.push_back(echo_next(past));
    past.push_back(text.back());
  }
  return text;
}

class PagedEcho {
 public:
  explicit PagedEcho(const Plan& plan)
      : plan_(plan),
        pages_(static_cast<size_t>(plan.kv.n_pages),
               std::vector<int32_t>(static_cast<size_t>(plan.kv.page_tokens), -1)) {}

  void forward(const StepBatch& batch, StepResult& result) {
    const StepLimits& limits = plan_.limits;
    EXPECT_GT(batch.n_rows(), 0);
    EXPECT_LE(batch.n_rows(), limits.max_rows);
    EXPECT_LE(static_cast<int64_t>(batch.sequences.size()), limits.max_sequences);
    EXPECT_LE(static_cast<int64_t>(batch.logit_rows.size()), limits.max_logit_rows);
    std::set<int32_t> slots;
    std::set<int32_t> seen_pages;
    std::vector<int32_t> next(batch.tokens.size(), -1);  // a row
    size_t row = 0;
    const int32_t* list = batch.pages.data();
    for (const StepSequence& sequence : batch.sequences) {
      EXPECT_TRUE(slots.insert(sequence.slot).second) << "a slot twice in a step";
      EXPECT_GT(sequence.n_rows, 0);
      for (int32_t p = 0; p < sequence.n_pages; ++p) {
        EXPECT_TRUE(seen_pages.insert(list[p]).second) << "a page of two sequences";
      }
      for (int32_t i = 0; i < sequence.n_rows; ++i, ++row) {
        next[row] = write_and_read(list, sequence, sequence.first_position + i, batch.tokens[row]);
      }
      list += sequence.n_pages;
    }
    EXPECT_EQ(row, batch.tokens.size());
    EXPECT_EQ(list, batch.pages.data() + batch.pages.size());
    answer(batch, next, result);
  }

 private:
  int32_t write_and_read(const int32_t* list, const StepSequence& sequence, int64_t position,
                         int32_t token) {
    const int64_t n = plan_.kv.page_tokens;
    if (position >= sequence.n_pages * n) {
      ADD_FAILURE() << "position " << position << " beyond " << sequence.n_pages << " pages";
      return 0;
    }
    std::vector<int32_t> past;
    pages_.at(static_cast<size_t>(list[position / n])).at(static_cast<size_t>(position % n)) =
        token;
    for (int64_t i = 0; i <= position; ++i) {
      past.push_back(pages_.at(static_cast<size_t>(list[i / n])).at(static_cast<size_t>(i % n)));
    }
    return echo_next(past);
  }

  static void answer(const StepBatch& batch, const std::vector<int32_t>& next, StepResult& result) {
    result.n_rows = static_cast<int64_t>(batch.logit_rows.size());
    int32_t last = -1;
    for (size_t i = 0; i < batch.logit_rows.size(); ++i) {
      const LogitRow& row = batch.logit_rows[i];
      EXPECT_GT(row.row, last) << "rows with logits must ascend";
      last = row.row;
      result.rows[i].candidates = {{next.at(static_cast<size_t>(row.row)), 1.0F}};
      result.rows[i].wanted.assign(static_cast<size_t>(row.n_wanted), 0.0F);
      result.rows[i].whole = {};
    }
  }

  const Plan& plan_;
  std::vector<std::vector<int32_t>> pages_;
};

class EchoSink : public TokenSink {
 public:
  bool on_token(int32_t token) override {
    EXPECT_FALSE(finished) << "a token after the end";
    tokens.push_back(token);
    return static_cast<int64_t>(tokens.size()) != cancel_at;
  }
  void on_finish(FinishReason why, const std::string& text) override {
    EXPECT_FALSE(finished) << "finished twice";
    finished = true;
    reason = why;
    message = text;
  }

  int64_t cancel_at = -1;  // the client goes away with this token
  std::vector<int32_t> tokens;
  bool finished = false;
  FinishReason reason = FinishReason::kError;
  std::string message;
};

// A greedy request of a sink.
inline Request echo_request(EchoSink& sink, std::vector<int32_t> prompt, int64_t max_new_tokens) {
  Request request;
  request.prompt = std::move(prompt);
  request.max_new_tokens = max_new_tokens;
  request.sampling.temperature = 0;
  request.sink = &sink;
  return request;
}

}  // namespace spillway::testing

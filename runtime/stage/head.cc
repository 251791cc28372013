// See head.h. A message holds, for every wanted row: the candidates (or all of this rank's logits),
// then the logits of the wanted tokens, -inf for those of other ranks.
#include "runtime/stage/head.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/core/check.h"
#include "runtime/stage/cpu_layer.h"

namespace spillway {
namespace {

int64_t candidates_of(const LogitRow& row, const Range& vocab) {
  return std::min<int64_t>(row.n_candidates, vocab.size());
}

// The order of cpu::top_k, a total one also when a broken model gives NaN (they come last).
bool better(const cpu::Candidate& a, const cpu::Candidate& b) {
  if (a.logit > b.logit) return true;
  if (a.logit < b.logit) return false;
  const bool a_nan = std::isnan(a.logit);
  const bool b_nan = std::isnan(b.logit);
  return a_nan != b_nan ? b_nan : a.token < b.token;
}

}  // namespace

Head::Head(const cpu::Exec& exec, const ModelSpec& model, const Plan& plan, Mesh& mesh,
           const Weights& weights, Scratch& scratch)
    : exec_(exec), model_(model), plan_(plan), mesh_(mesh), weights_(weights), scratch_(scratch) {}

int64_t Head::message_bytes(const StepBatch& batch, const Range& vocab) const {
  int64_t bytes = 0;
  for (const LogitRow& row : batch.logit_rows) {
    bytes += row.n_candidates > 0
                 ? candidates_of(row, vocab) * static_cast<int64_t>(sizeof(cpu::Candidate))
                 : vocab.size() * static_cast<int64_t>(sizeof(float));
    bytes += row.n_wanted * static_cast<int64_t>(sizeof(float));
  }
  return bytes;
}

void Head::run(const StepBatch& batch, View2D<const float> x) {
  const int64_t n = static_cast<int64_t>(batch.logit_rows.size());
  if (n == 0) return;
  const View2D<float> rows = scratch_.logit_x.view(n, model_.dim);
  for (int64_t i = 0; i < n; ++i) {
    const auto source = x.row(batch.logit_rows[static_cast<size_t>(i)].row);
    std::copy(source.begin(), source.end(), rows.row(i).begin());
  }
  cpu::rms_norm(exec_, rows, weights_.output_norm, static_cast<float>(model_.norm_eps), rows);
  const cpu::Activations input = scratch_.logit_x.of(n, model_.dim);
  if (reads_int8({&weights_.output, 1})) cpu::quantize_rows(exec_, input);
  cpu::matmul(exec_, {&weights_.output, 1}, input, scratch_.logits.head_rows(n));

  finish();
  write_message(batch, scratch_.head_message);
  deliver(batch);
}

void Head::deliver(const StepBatch& batch) {
  const RankPart& part = plan_.parts[static_cast<size_t>(mesh_.rank)];
  const int64_t bytes = message_bytes(batch, part.output_rows);
  CHECK_LE(bytes, scratch_.head_message_bytes);
  if (bytes == 0 || mesh_.front()) return;
  posts_.post(*mesh_.world, {scratch_.head_message, static_cast<size_t>(bytes)}, 0);
}

void Head::write_message(const StepBatch& batch, std::byte* out) const {
  const Range& vocab = weights_.output_rows;
  const int32_t* wanted = batch.wanted.data();
  for (size_t i = 0; i < batch.logit_rows.size(); ++i) {
    const LogitRow& row = batch.logit_rows[i];
    const std::span<const float> logits = scratch_.logits.row(static_cast<int64_t>(i));
    if (row.n_candidates > 0) {
      const auto n = static_cast<size_t>(candidates_of(row, vocab));
      cpu::top_k(exec_, logits, vocab.begin, {reinterpret_cast<cpu::Candidate*>(out), n});
      out += n * sizeof(cpu::Candidate);
    } else {
      std::memcpy(out, logits.data(), logits.size_bytes());
      out += logits.size_bytes();
    }
    for (int32_t j = 0; j < row.n_wanted; ++j, ++wanted, out += sizeof(float)) {
      const bool mine = *wanted >= vocab.begin && *wanted < vocab.end;
      const float logit = mine ? logits[static_cast<size_t>(*wanted - vocab.begin)]
                               : -std::numeric_limits<float>::infinity();
      std::memcpy(out, &logit, sizeof(float));
    }
  }
}

void Head::read_message(const StepBatch& batch, const Range& vocab, const std::byte* in,
                        StepResult& result) {
  for (size_t i = 0; i < batch.logit_rows.size(); ++i) {
    const LogitRow& row = batch.logit_rows[i];
    RowResult& out = result.rows[i];
    if (row.n_candidates > 0) {
      for (int64_t j = 0; j < candidates_of(row, vocab); ++j, in += sizeof(cpu::Candidate)) {
        cpu::Candidate candidate;
        std::memcpy(&candidate, in, sizeof(candidate));
        out.candidates.push_back(candidate);
      }
    } else {
      const std::span<float> whole = scratch_.front_rows.row(static_cast<int64_t>(i));
      const auto bytes = static_cast<size_t>(vocab.size()) * sizeof(float);
      if (bytes > 0) std::memcpy(whole.data() + vocab.begin, in, bytes);
      in += bytes;
      out.whole = whole;
    }
    for (int32_t j = 0; j < row.n_wanted; ++j, in += sizeof(float)) {
      float logit;
      std::memcpy(&logit, in, sizeof(float));
      float& slot = out.wanted[static_cast<size_t>(j)];
      slot = std::max(slot, logit);
    }
  }
}

void Head::collect(const StepBatch& batch, StepResult& result) {
  result.n_rows = static_cast<int64_t>(batch.logit_rows.size());
  if (result.n_rows == 0) return;
  for (size_t i = 0; i < batch.logit_rows.size(); ++i) {
    RowResult& row = result.rows[i];
    row.candidates.clear();
    row.whole = {};
    row.wanted.assign(static_cast<size_t>(batch.logit_rows[i].n_wanted),
                      -std::numeric_limits<float>::infinity());
  }
  for (const int rank : plan_.stages.back().ranks) {
    const Range vocab = plan_.parts[static_cast<size_t>(rank)].output_rows;
    const std::byte* message = scratch_.head_message;
    if (rank != mesh_.rank) {
      const int64_t bytes = message_bytes(batch, vocab);
      CHECK_LE(bytes, scratch_.front_message_bytes);
      if (bytes == 0) continue;  // it has no part of the vocabulary, see deliver()
      mesh_.world->recv({scratch_.front_message, static_cast<size_t>(bytes)}, rank);
      message = scratch_.front_message;
    }
    read_message(batch, vocab, message, result);
  }
  for (size_t i = 0; i < batch.logit_rows.size(); ++i) {
    std::vector<cpu::Candidate>& candidates = result.rows[i].candidates;
    std::sort(candidates.begin(), candidates.end(), better);
    const auto most = static_cast<size_t>(batch.logit_rows[i].n_candidates);
    if (candidates.size() > most) candidates.resize(most);
  }
}

}  // namespace spillway

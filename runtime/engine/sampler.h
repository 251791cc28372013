// Sampler: from a row's logits to one token. The order of the filters is llama.cpp's default:
// logit bias, penalties, top-k, top-p, min-p, temperature, then a draw; temperature 0 takes the
// best. It sees only the row's best candidates when these decide the draw, so that ranks send a few
// pairs and not the vocabulary; the draw is the same either way, and on every split.
//   Thread: the engine's. One Sampler a sequence; it holds the sequence's random state.
#pragma once

#include <cstdint>
#include <deque>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "runtime/stage/step_batch.h"

namespace spillway {

struct SamplingParams {
  float temperature = 0.8F;        // >= 0; 0: greedy
  int32_t top_k = 40;              // 0: all
  float top_p = 0.95F;             // (0, 1]
  float min_p = 0.05F;             // [0, 1)
  float repeat_penalty = 1.0F;     // > 0; 1: off
  float frequency_penalty = 0.0F;  // [-2, 2]
  float presence_penalty = 0.0F;   // [-2, 2]
  int32_t repeat_last_n = 64;      // tokens that the penalties look at, prompt included
  std::vector<std::pair<int32_t, float>> logit_bias;  // added; -inf bans a token
  uint64_t seed = 0;
};

// The first thing wrong with the parameters, "" when they are fine: "top_p is 1.5, must be in
// (0, 1]". limits: how many tokens a row may ask for by name.
std::string check_sampling(const SamplingParams& params, int64_t vocab_size,
                           const StepLimits& limits);

class Sampler {
 public:
  Sampler(SamplingParams params, int64_t vocab_size, const StepLimits& limits);

  // The token is in the sequence now (prompt or drawn): penalties see it.
  void accept(int32_t token);
  // What the next row must bring: appends the tokens whose logits this sampler changes to `wanted`,
  // and says how many candidates it needs (0: the whole row).
  LogitRow ask(int32_t row, std::vector<int32_t>& wanted) const;
  // Draws. `wanted`: what ask() appended for this row.
  int32_t sample(const RowResult& row, std::span<const int32_t> wanted);

 private:
  float adjusted(int32_t token, float logit) const;
  void gather(const RowResult& row, std::span<const int32_t> wanted);
  int32_t draw();
  // In [0, 1), 53 bits, equal on every platform.
  double uniform();

  SamplingParams params_;
  bool all_logits_;
  int64_t max_candidates_;
  std::vector<int32_t> window_;  // ring of the last repeat_last_n tokens
  size_t window_next_ = 0;
  std::vector<std::pair<int32_t, int32_t>> counts_;  // token, times in the window; sorted
  std::vector<cpu::Candidate> pool_;                 // best first once gathered
  std::vector<double> weights_;
  std::mt19937_64 random_;
};

}  // namespace spillway

// The arithmetic of perplexity: which tokens of a text are read together and which are scored, the
// negative log likelihood of one token, and the figure of many. Called by verb_perplexity.cc; knows
// no model and no rank.
//
// Chunks (no stride) are those of llama.cpp's llama-perplexity: chunk k is the tokens
// [k C, (k + 1) C), its logits at positions C/2 to C - 2 predict the tokens at C/2 + 1 to C - 1.
// Windows with stride N: window k is the tokens [k N, k N + C). Its last N tokens are scored, that
// is the logits at C - 1 - N to C - 2; the first window scores from position 0. With N = C every
// window scores from position 0: nothing predicts its first token. Only whole chunks and windows
// are read.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace spillway {

// Logits at positions [first_scored, context - 1) count; position i is token begin + i.
struct Window {
  int64_t begin = 0;
  int64_t first_scored = 0;
  bool operator==(const Window&) const = default;
};

// stride 0: chunks. At most `most` of them (0: all). 3 <= context, 0 <= stride <= context. Empty
// when the text has fewer than context tokens.
std::vector<Window> perplexity_windows(int64_t n_tokens, int64_t context, int64_t stride,
                                       int64_t most);

// A step of a window: its next n_rows tokens, the logits of the last n_scored of them.
struct WindowStep {
  int64_t n_rows = 0;
  int64_t n_scored = 0;
  bool operator==(const WindowStep&) const = default;
};

// The fewest steps, within the limits, that read positions [0, context - 1): the last token is
// predicted, never read.
std::vector<WindowStep> window_steps(const Window& window, int64_t context, int64_t max_rows,
                                     int64_t max_logit_rows);

// -ln softmax(logits)[target], in nats, in double from the first exp on; the greatest logit is
// taken off first, so no exp overflows. NaN or infinite when the logits are not finite.
double token_nll(std::span<const float> logits, int32_t target);

// Mean and spread of negative log likelihoods, one by one (Welford's update: no sum of squares that
// loses the small difference).
class NllSum {
 public:
  void add(double nll);

  int64_t count() const { return count_; }
  double mean() const { return mean_; }
  // exp(mean).
  double perplexity() const;
  // Standard error of the mean times the perplexity, as the derivative of exp says. The variance is
  // the population's divided by count - 1, llama-perplexity's choice; 0 below two tokens.
  double error() const;

 private:
  int64_t count_ = 0;
  double mean_ = 0;
  double squares_ = 0;  // sum of squared differences from the mean
};

}  // namespace spillway

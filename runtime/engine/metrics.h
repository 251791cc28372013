// Metrics: what a rank counts while it runs; written by the main thread, read by heartbeats and by
// whoever prints statistics. All fields are atomics: any thread, no locks.
#pragma once

#include <atomic>
#include <cstdint>

namespace spillway {

struct Metrics {
  std::atomic<int64_t> step{-1};  // the step in work, or the last one
  std::atomic<int64_t> prompt_tokens{0};
  std::atomic<int64_t> new_tokens{0};
  std::atomic<int64_t> prefill_ns{0};      // time of steps that read prompts
  std::atomic<int64_t> decode_ns{0};       // time of all others
  std::atomic<int64_t> decode_tokens{0};   // drawn by those others
  std::atomic<int64_t> first_token_ns{0};  // since the engine's construction; 0: none yet

  double decode_tok_per_s() const {
    const int64_t ns = decode_ns;
    return ns > 0 ? 1e9 * static_cast<double>(decode_tokens) / static_cast<double>(ns) : 0;
  }
  double prefill_tok_per_s() const {
    const int64_t ns = prefill_ns;
    return ns > 0 ? 1e9 * static_cast<double>(prompt_tokens) / static_cast<double>(ns) : 0;
  }
};

}  // namespace spillway

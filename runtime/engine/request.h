// Request: one generation to run; TokenSink: where its tokens go. One of the three virtual
// interfaces (STYLE.md): the terminal, a test, later an SSE stream.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "runtime/engine/sampler.h"

namespace spillway {

enum class FinishReason { kStop, kLength, kContext, kCancelled, kError };
const char* finish_reason_name(FinishReason reason);  // "stop", "length", …

// Its calls come from inside a step: they must not call the engine.
class TokenSink {
 public:
  virtual ~TokenSink() = default;
  // Called from the engine's thread between steps, in order. false: the client is gone, cancel.
  virtual bool on_token(int32_t token) = 0;
  // Once, last. message: for kError what happened.
  virtual void on_finish(FinishReason reason, const std::string& message) = 0;
};

struct Request {
  std::vector<int32_t> prompt;  // token ids, at least one
  int64_t max_new_tokens = 128;
  SamplingParams sampling;
  std::vector<int32_t> end_tokens;  // finish with kStop, not handed out
  TokenSink* sink = nullptr;        // must outlive the request
  // Set by any thread to end the request before its next step, also while it waits or its prompt is
  // read; nullptr: never. Must outlive the request.
  const std::atomic<bool>* cancelled = nullptr;
};

}  // namespace spillway

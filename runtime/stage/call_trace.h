// CallTrace: when streams called the host, while a rank is traced: from threads of CUDA's, so on a
// clock that asks nothing of CUDA.
//   Thread: start() and stop() from the rank's main thread, scopes on any.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

#include "runtime/stage/step_trace.h"

namespace spillway {

inline int64_t steady_now_ns() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::nanoseconds(now).count();
}

class CallTrace {
 public:
  void start() {
    calls_.clear();
    on_ = true;
  }
  // What was called since; shift_ns is added to the times of steady_now_ns().
  std::vector<HostCall> stop(int64_t shift_ns) {
    on_ = false;
    const std::lock_guard<std::mutex> lock(mutex_);
    for (HostCall& call : calls_) {
      call.begin_ns += shift_ns;
      call.end_ns += shift_ns;
    }
    return std::move(calls_);
  }

  // A call, as long as it lives. Nothing when `trace` is nullptr or off.
  class Scope {
   public:
    Scope(CallTrace* trace, HostCall::Kind kind)
        : trace_(trace != nullptr && trace->on_ ? trace : nullptr), kind_(kind) {
      if (trace_ != nullptr) begin_ns_ = steady_now_ns();
    }
    ~Scope() {
      if (trace_ == nullptr) return;
      const std::lock_guard<std::mutex> lock(trace_->mutex_);
      trace_->calls_.push_back({kind_, begin_ns_, steady_now_ns()});
    }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    CallTrace* trace_;
    HostCall::Kind kind_;
    int64_t begin_ns_ = 0;
  };

 private:
  std::atomic<bool> on_{false};
  std::mutex mutex_;
  std::vector<HostCall> calls_;
};

}  // namespace spillway

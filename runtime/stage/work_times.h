// WorkTimes: where the time of a rank on a CPU goes, step by step, while it is traced (bench
// --profile). The layers tell what was done since they told last; one clock reading each.
//   Thread: the rank's main thread.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "runtime/stage/call_trace.h"

namespace spillway {

class WorkTimes {
 public:
  void start() {
    on_ = true;
    spans_.clear();
    waits_.clear();
  }
  // What there was since.
  StepTrace stop() {
    on_ = false;
    StepTrace out;
    out.on_cpu = std::move(spans_);
    out.waits = std::move(waits_);
    return out;
  }
  bool on() const { return on_; }

  void begin_step() {
    if (!on_) return;
    told_ns_ = steady_now_ns();
    spans_.push_back({told_ns_, told_ns_, {}});
  }
  // What was done since the last call, within a step.
  void lap(CpuWork work) {
    if (!on_) return;
    const int64_t now = steady_now_ns();
    CpuSpan& span = spans_.back();
    span.ns[static_cast<size_t>(work)] += now - told_ns_;
    span.end_ns = told_ns_ = now;
  }
  // Outside of a step, since this moment of steady_now_ns().
  void waited(int64_t since_ns) {
    if (on_) waits_.push_back({since_ns, steady_now_ns()});
  }

 private:
  bool on_ = false;
  int64_t told_ns_ = 0;
  std::vector<CpuSpan> spans_;
  std::vector<HostWait> waits_;
};

}  // namespace spillway

// See disk_calls.h.
#include "runtime/stage/disk_calls.h"

#include <algorithm>

#include "kernels/core/check.h"

namespace spillway {

DiskCalls::DiskCalls(DiskHalves& halves, CallTrace* trace) : halves_(halves), trace_(trace) {
  for (size_t i = 0; i < halves.size(); ++i) turns_.push_back({this, i});
}

bool DiskCalls::fails(size_t half) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (failed_ != nullptr) return true;
  }
  try {
    CHECK(halves_.wait() == halves_.at(half));  // else the step took its halves in another order
    return false;
  } catch (...) {
    const std::lock_guard<std::mutex> lock(mutex_);
    failed_ = std::current_exception();
    return true;
  }
}

void DiskCalls::wait(void* turn) noexcept {
  const auto& [calls, half] = *static_cast<const Turn*>(turn);
  const CallTrace::Scope scope(calls->trace_, HostCall::Kind::kReadDisk);
  if (!calls->fails(half)) return;
  // Nobody reads into the slots any more; once is enough.
  bool& spoilt = calls->spoilt_[half % calls->spoilt_.size()];
  const std::span<std::byte> slot = calls->halves_.slot_of(half);
  if (!spoilt) std::fill(slot.begin(), slot.end(), std::byte{0xff});
  spoilt = true;
}

void DiskCalls::release(void* turn) noexcept {
  DiskCalls& calls = *static_cast<const Turn*>(turn)->calls;
  {
    const std::lock_guard<std::mutex> lock(calls.mutex_);
    if (calls.failed_ != nullptr) return;  // wait() got nothing
  }
  calls.halves_.release();
}

void DiskCalls::check() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (failed_ != nullptr) std::rethrow_exception(failed_);
}

}  // namespace spillway

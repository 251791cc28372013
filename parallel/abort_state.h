// What a communicator and all that were split from it share between threads: whether the process
// was told to give up, and what its main thread waits for. Used by the *_communicator.cc files.
//   Thread: every method from any thread. Lock-free but for texts: a reason, a call.
//   Invariants: the first reason stays; raised() is true only after the reason is complete.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "kernels/core/error.h"

namespace spillway {

enum class CommOp : uint32_t { kNone, kAllReduce, kAllGather, kBroadcast, kSend, kRecv, kBarrier };
inline constexpr size_t kCommOps = 7;

inline const char* comm_op_name(CommOp op) {
  constexpr std::array<const char*, kCommOps> kNames = {
      "", "all-reduce", "all-gather", "broadcast", "send", "recv", "barrier"};
  return kNames[static_cast<size_t>(op)];
}

class AbortState {
 public:
  void raise(const std::string& reason) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (raised_.load(std::memory_order_relaxed)) return;
    reason_ = reason;
    raised_.store(true, std::memory_order_release);
  }
  bool raised() const { return raised_.load(std::memory_order_acquire); }
  void throw_if_raised() const {
    if (raised()) [[unlikely]]
      throw Error(reason_, "", "");
  }

 private:
  std::atomic<bool> raised_{false};
  std::mutex mutex_;
  std::string reason_;
};

// The operation that the main thread is in, in one word so that another thread can read it whole:
// operation 8 bits, peer + 1 (0: nobody in particular) 16 bits, how many of its kind 40 bits.
class WaitState {
 public:
  // Main thread. peer: rank of the job, or -1.
  void begin(CommOp op, int peer) {
    const uint64_t count = ++counts_[static_cast<size_t>(op)] & ((uint64_t{1} << 40) - 1);
    const uint64_t who = static_cast<uint64_t>(peer + 1) & 0xFFFF;
    word_.store(static_cast<uint64_t>(op) << 56 | who << 40 | count, std::memory_order_relaxed);
  }
  void end() { word_.store(0, std::memory_order_relaxed); }
  // Main thread, while it starts: it is in a library's call that waits for these ranks; "": it is
  // not any more.
  void call(const std::string& name, const std::vector<int>& ranks) {
    std::string words = name;
    for (size_t i = 0; i < ranks.size() && !name.empty(); ++i) {
      words += (i == 0 ? " with ranks " : ", ") + std::to_string(ranks[i]);
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    call_ = words;
  }

  // Any thread: "all-reduce 57", "recv 12 from rank 3", "ncclCommInitRank with ranks 0, 1", ""
  // between operations.
  std::string text() const {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!call_.empty()) return call_;
    }
    const uint64_t word = word_.load(std::memory_order_relaxed);
    if (word == 0) return "";
    const auto op = static_cast<CommOp>(word >> 56);
    const auto peer = static_cast<int64_t>(word >> 40 & 0xFFFF) - 1;
    const uint64_t count = word & ((uint64_t{1} << 40) - 1);
    std::string text = std::string(comm_op_name(op)) + " " + std::to_string(count);
    if (peer < 0) return text;
    return text + (op == CommOp::kRecv ? " from rank " : " to rank ") + std::to_string(peer);
  }

 private:
  std::atomic<uint64_t> word_{0};
  std::array<uint64_t, kCommOps> counts_{};  // main thread only
  mutable std::mutex mutex_;
  std::string call_;
};

}  // namespace spillway

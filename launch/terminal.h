// What a person sees: sizes, a progress bar, this process's memory.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>

#include "parallel/size_text.h"

namespace spillway {

// Resident bytes of this process, as the kernel counts them now, without mapped weights: the page
// cache's, which may take them away at any time. mapped_bytes: how many of these there can be.
int64_t resident_bytes(int64_t mapped_bytes);

// Text out of a file, fit for a table: control characters become blanks, at most `most` bytes of
// it.
std::string one_line(std::string text, size_t most);

// A bar on standard error: rewritten in place on a terminal, one line at the end otherwise.
//   Thread: any.
class ProgressBar {
 public:
  ProgressBar(std::string label, bool shown);
  void update(int64_t done_bytes, int64_t total_bytes);

 private:
  std::mutex mutex_;  // guards all below
  std::string label_;
  bool shown_;
  bool terminal_;
  bool finished_ = false;
  std::chrono::steady_clock::time_point begin_;
};

}  // namespace spillway

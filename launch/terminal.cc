// See terminal.h.
#include "launch/terminal.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <limits>
#include <utility>

namespace spillway {

int64_t resident_bytes(int64_t mapped_bytes) {
  // "RssFile:     16384 kB": files' pages, the program's own among them.
  std::ifstream status("/proc/self/status");
  int64_t all_kib = 0;
  int64_t file_kib = 0;
  std::string key;
  while (status >> key) {
    if (key == "VmRSS:") status >> all_kib;
    if (key == "RssFile:") status >> file_kib;
    status.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return all_kib * 1024 - std::min(file_kib * 1024, mapped_bytes);
}

std::string one_line(std::string text, size_t most) {
  const auto is_control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
  std::replace_if(text.begin(), text.end(), is_control, ' ');
  if (text.size() > most) text = text.substr(0, most) + "…";
  return text;
}

ProgressBar::ProgressBar(std::string label, bool shown)
    : label_(std::move(label)),
      shown_(shown),
      terminal_(isatty(STDERR_FILENO) == 1),
      begin_(std::chrono::steady_clock::now()) {}

void ProgressBar::update(int64_t done_bytes, int64_t total_bytes) {
  const std::lock_guard lock(mutex_);
  if (!shown_ || finished_ || total_bytes <= 0) return;
  finished_ = done_bytes >= total_bytes;
  if (!terminal_ && !finished_) return;
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  const double rate = seconds > 0 ? static_cast<double>(done_bytes) / seconds : 0;
  constexpr int kWidth = 24;
  const int filled = static_cast<int>(kWidth * done_bytes / total_bytes);
  const std::string bar = std::string(static_cast<size_t>(filled), '#') +
                          std::string(static_cast<size_t>(kWidth - filled), '.');
  const double left = rate > 0 ? static_cast<double>(total_bytes - done_bytes) / rate : 0;
  std::fprintf(stderr, "%s%s [%s] %s of %s, %s/s, %.1f s %s%s", terminal_ ? "\r" : "",
               label_.c_str(), bar.c_str(), size_text(done_bytes).c_str(),
               size_text(total_bytes).c_str(), size_text(static_cast<int64_t>(rate)).c_str(),
               finished_ ? seconds : left, finished_ ? "in all" : "left", finished_ ? "\n" : "   ");
  std::fflush(stderr);
}

}  // namespace spillway

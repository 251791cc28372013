// See bus_guard.h. The handler calls only what signal-safety(7) allows.
#include "launch/bus_guard.h"

#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <string_view>

namespace spillway {
namespace {

// A handler gets no argument of ours: what it says lies here, written once before it is installed.
struct Guarded {
  char path[4096];
  long long bytes;  // -1: not known
  const std::byte* spill;
  size_t spill_bytes;
  char spill_where[4096];
};
Guarded guarded;

// A line of limited length, without the heap.
class Line {
 public:
  void add(std::string_view text) {
    const size_t room = sizeof(text_) - used_;
    const size_t n = text.size() < room ? text.size() : room;
    std::memcpy(text_ + used_, text.data(), n);
    used_ += n;
  }
  void add(long long number) {
    char digits[24];
    size_t at = sizeof(digits);
    do {
      digits[--at] = static_cast<char>('0' + number % 10);
      number /= 10;
    } while (number > 0);
    add({digits + at, sizeof(digits) - at});
  }
  void print() const {
    // Nobody is left to tell when this fails.
    [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text_, used_);
  }

 private:
  char text_[5000];
  size_t used_ = 0;
};

void say_spill_failed(size_t offset) {
  Line line;
  line.add("\nspillway: reading the spill file failed at byte ");
  line.add(static_cast<long long>(offset));
  line.add(", which the page cache had lost (");
  line.add(guarded.spill_where);
  line.add("): check the disk, or give another by --spill-dir\n");
  line.print();
}

void on_bus_error(int, siginfo_t* info, void*) {
  if (info->si_code != BUS_ADRERR) {
    // No page is missing: a bug of ours, which must look like one when the read is tried again.
    std::signal(SIGBUS, SIG_DFL);
    return;
  }
  const auto* at = static_cast<const std::byte*>(info->si_addr);
  if (at >= guarded.spill && at < guarded.spill + guarded.spill_bytes) {
    say_spill_failed(static_cast<size_t>(at - guarded.spill));
    _exit(1);
  }
  struct stat facts {};
  const bool known = ::stat(guarded.path, &facts) == 0 && guarded.bytes >= 0;
  Line line;
  line.add("\nspillway: ");
  if (known && facts.st_size < guarded.bytes) {
    line.add("the file became shorter while it was in use: ");
    line.add(static_cast<long long>(facts.st_size));
    line.add(" of ");
    line.add(guarded.bytes);
    line.add(" bytes are left");
  } else {
    line.add(
        "a mapped page cannot be had: a file was cut off, its disk failed, or /dev/shm is full");
  }
  line.add(" (");
  line.add(guarded.path);
  line.add("): restore the file and start again\n");
  line.print();
  _exit(1);
}

}  // namespace

void guard_mapped_file(const std::string& path) {
  struct stat facts {};
  guarded.bytes = ::stat(path.c_str(), &facts) == 0 ? facts.st_size : -1;
  std::strncpy(guarded.path, path.c_str(), sizeof(guarded.path) - 1);
  struct sigaction action {};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO;
  sigemptyset(&action.sa_mask);
  ::sigaction(SIGBUS, &action, nullptr);
}

void guard_spill_file(std::span<const std::byte> mapped, const std::string& where) {
  std::strncpy(guarded.spill_where, where.c_str(), sizeof(guarded.spill_where) - 1);
  guarded.spill = mapped.data();
  guarded.spill_bytes = mapped.size();
}

}  // namespace spillway

// See disk_rate.h.
#include "parallel/disk_rate.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/core/seconds.h"
#include "kernels/core/start_thread.h"

namespace spillway {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kBlock = int64_t{8} << 20;
constexpr int64_t kLeastBytes = 2 * kBlock;
constexpr int64_t kMostBytes = int64_t{1} << 30;
constexpr int64_t kCachedBytes = int64_t{128} << 20;
constexpr size_t kAlignment = 4096;
constexpr int kThreads = 4;
constexpr double kDiskSeconds = 0.5;

struct Descriptor {
  int fd = -1;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

struct Freed {
  void operator()(void* memory) const { std::free(memory); }
};

// Whole blocks of [0, bytes), by four threads, until `seconds` are over; 0 when a read fails.
double read_rate(int fd, int64_t bytes, double seconds) {
  std::atomic<int64_t> next{0};
  std::atomic<int64_t> done{0};
  std::atomic<bool> failed{false};
  const auto start = Clock::now();
  const auto work = [&] {
    const std::unique_ptr<void, Freed> memory(std::aligned_alloc(kAlignment, kBlock));
    while (memory != nullptr && !failed && seconds_since(start) < seconds) {
      const int64_t at = next.fetch_add(kBlock);
      if (at + kBlock > bytes) break;
      const ssize_t n = ::pread(fd, memory.get(), static_cast<size_t>(kBlock), at);
      if (n != kBlock) failed = true;
      done += kBlock;
    }
  };
  std::vector<std::thread> threads;
  const auto join = [&] {
    for (std::thread& thread : threads) thread.join();
  };
  try {
    start_threads(
        "probe of the disk", kThreads, [&](int) { work(); }, threads);
  } catch (...) {
    failed = true;  // ends those that could be started
    join();
    throw;
  }
  join();
  return failed ? 0 : static_cast<double>(done) / seconds_since(start) * 1e-9;
}

}  // namespace

DiskRates measure_disk(const std::string& path) {
  // Opening a pipe must not wait for a writer.
  const Descriptor cached{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (cached.fd < 0) throw Error("cannot be opened: " + std::string(std::strerror(errno)), path);
  struct stat facts {};
  if (::fstat(cached.fd, &facts) != 0 || !S_ISREG(facts.st_mode)) {
    throw Error("is not a regular file", path);
  }
  DiskRates rates;
  if (facts.st_size < kLeastBytes) return rates;
  const int64_t bytes = std::min<int64_t>(facts.st_size, kMostBytes);
  const Descriptor direct{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT)};
  if (direct.fd >= 0) rates.disk_gb_per_s = read_rate(direct.fd, bytes, kDiskSeconds);
  const int64_t some = std::min(bytes, kCachedBytes);
  // Once to fill it.
  read_rate(cached.fd, some, kDiskSeconds);
  rates.page_cache_gb_per_s = read_rate(cached.fd, some, kDiskSeconds);
  return rates;
}

}  // namespace spillway

// See disk_rate.h.
#include "parallel/disk_rate.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

#include "kernels/core/arena.h"
#include "kernels/core/error.h"
#include "kernels/core/seconds.h"
#include "kernels/core/start_thread.h"

namespace spillway {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kLeastBytes = int64_t{16} << 20;
constexpr int64_t kMostBytes = int64_t{1} << 30;
constexpr int64_t kCachedBytes = int64_t{512} << 20;  // no processor's cache holds it
constexpr int kLooks = 5;
constexpr double kLookSeconds = 0.1;
constexpr double kFillSeconds = 1;
constexpr double kCachedSeconds = 0.2;
// Of each reader: as a slot, several chunks long. A direct read into small pages is cut up for the
// disk: 1.1 to 1.8 GB/s, once 2.7, where large pages had 2.1 to 3.5 (virtio, Linux 6.18).
constexpr int64_t kSlotChunks = 4;
// Of many readers together, which copy what is cached: more than a processor's caches hold, as the
// slots of a large model are.
constexpr int64_t kManySlotBytes = int64_t{512} << 20;

struct Descriptor {
  int fd = -1;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

class Slots {
 public:
  Slots(int n_readers, int64_t most_bytes)
      : readers(n_readers),
        each_(n_readers > 2 ? std::max(most_bytes / kDiskChunkBytes / n_readers, kSlotChunks)
                            : kSlotChunks),
        memory_("probe of the disk", readers * each_ * kDiskChunkBytes),
        base_(memory_.take(memory_.bytes())) {}
  std::byte* chunk(int reader, int64_t i) const {
    return base_ + (reader * each_ + i % each_) * kDiskChunkBytes;
  }
  const int readers;

 private:
  int64_t each_;  // chunks
  Arena memory_;
  std::byte* base_;
};

// Chunks of [0, bytes) in turn, from byte `next` on and round, until `seconds` are over; 0 when a
// read fails.
double read_rate(int fd, int64_t bytes, double seconds, const Slots& slots,
                 std::atomic<int64_t>& next) {
  const int64_t n_chunks = bytes / kDiskChunkBytes;
  std::atomic<int64_t> done{0};
  std::atomic<bool> failed{false};
  const auto start = Clock::now();
  const auto work = [&](int reader) {
    for (int64_t i = 0; !failed && seconds_since(start) < seconds; ++i) {
      const int64_t at = next.fetch_add(1) % n_chunks * kDiskChunkBytes;
      const ssize_t n = ::pread(fd, slots.chunk(reader, i), kDiskChunkBytes, at);
      if (n != kDiskChunkBytes) failed = true;
      done += kDiskChunkBytes;
    }
  };
  std::vector<std::thread> threads;
  const auto join = [&] {
    for (std::thread& thread : threads) thread.join();
  };
  try {
    start_threads(
        "probe of the disk", slots.readers, [&](int reader) { work(reader); }, threads);
  } catch (...) {
    failed = true;  // ends those that could be started
    join();
    throw;
  }
  join();
  return failed ? 0 : static_cast<double>(done) / seconds_since(start) * 1e-9;
}

}  // namespace

DiskRates measure_disk(const std::string& path, int readers, int64_t free_bytes) {
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
  const Slots slots(readers, std::min(kManySlotBytes, free_bytes / 16));
  std::atomic<int64_t> next{0};
  if (direct.fd >= 0) {
    std::vector<double> looks;
    for (int look = 0; look < kLooks; ++look) {
      looks.push_back(read_rate(direct.fd, bytes, kLookSeconds, slots, next));
    }
    std::sort(looks.begin(), looks.end());
    rates.disk_gb_per_s = looks.front() > 0 ? looks[looks.size() / 2] : 0;
  }
  const int64_t some = std::min(bytes, kCachedBytes);
  next = 0;
  // Once to fill it.
  read_rate(cached.fd, some, kFillSeconds, slots, next);
  rates.page_cache_gb_per_s = read_rate(cached.fd, some, kCachedSeconds, slots, next);
  return rates;
}

}  // namespace spillway

// A file system that opens a file for direct reads and then refuses them (EINVAL), as some network
// and stacked ones do: the spill file is read by way of the page cache. This program's own pread
// stands before the C library's and refuses.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

#include "kernels/core/arena.h"
#include "runtime/io/spill_file.h"
#include "tests/support/temp_dir.h"

namespace {
std::atomic<bool> refuses{false};
std::atomic<int> n_refused{0};
}  // namespace

extern "C" ssize_t pread(int fd, void* data, size_t n, off_t offset) {
  if (refuses && (fcntl(fd, F_GETFL) & O_DIRECT) != 0) {
    ++n_refused;
    errno = EINVAL;
    return -1;
  }
  return syscall(SYS_pread64, fd, data, n, offset);
}

namespace spillway {
namespace {

TEST(SpillFile, ReadsThroughTheCacheWhatCannotBeReadDirectly) {
  constexpr int64_t kBytes = 3 * SpillFile::kAlignment;
  const testing::TempDir dir;
  SpillFile file(dir.file("spill"), "weights", kBytes);
  Arena arena("test", 2 * (kBytes + SpillFile::kAlignment));
  const auto aligned = [&] {
    std::byte* data = arena.take(kBytes + SpillFile::kAlignment);
    const auto at = reinterpret_cast<uintptr_t>(data);
    return data + (SpillFile::kAlignment - at % SpillFile::kAlignment) % SpillFile::kAlignment;
  };
  const std::span<std::byte> data(aligned(), kBytes);
  const std::span<std::byte> back(aligned(), kBytes);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i * 7 + i / 256);
  file.write(0, data);
  // Out of the page cache, or it would not be read directly.
  for (int fd = 3; fd < 64; ++fd) {
    (void)fdatasync(fd);
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  }
  refuses = true;
  file.read(0, back);
  refuses = false;
  EXPECT_TRUE(std::equal(back.begin(), back.end(), data.begin()));
  if (n_refused == 0) GTEST_SKIP() << "its pages stayed in the cache: nothing was read directly";
}

}  // namespace
}  // namespace spillway

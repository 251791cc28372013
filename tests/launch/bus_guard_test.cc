// A mapped file that becomes shorter while it is read: one line and exit code 1, in a process of
// its own each time.
#include "launch/bus_guard.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>

#include "runtime/io/mapped_file.h"
#include "runtime/io/spill_file.h"
#include "tests/support/temp_dir.h"

namespace spillway::testing {
namespace {

constexpr size_t kBytes = 1 << 16;

void read_all(const MappedFile& file) {
  unsigned sum = 0;
  for (const std::byte b : file.bytes()) sum += static_cast<unsigned>(b);
  asm volatile("" : : "g"(sum));
}

// The process that dies for the test must not leave a core file.
void cut_and_read(const std::string& path, bool away) {
  const rlimit none{0, 0};
  setrlimit(RLIMIT_CORE, &none);
  guard_mapped_file(path);
  const MappedFile file(path);
  read_all(file);
  std::filesystem::resize_file(path, 4096);
  if (away) std::filesystem::remove(path);
  read_all(file);
  _exit(0);
}

TEST(BusGuardDeathTest, ShorterWhileMapped) {
  const TempDir folder;
  const std::string path = folder.write("model.gguf", std::string(kBytes, 'x'));
  EXPECT_EXIT(cut_and_read(path, false), ::testing::ExitedWithCode(1),
              "spillway: the file became shorter while it was in use: 4096 of 65536 bytes are left "
              "\\(.*model.gguf\\): restore");
  const std::string gone = folder.write("gone.gguf", std::string(kBytes, 'x'));
  EXPECT_EXIT(cut_and_read(gone, true), ::testing::ExitedWithCode(1),
              "spillway: a mapped page cannot be had: .*gone.gguf");
}

// As a disk that fails when a page is read again: beyond the end of a file there is none.
void cut_spill_and_read(const std::string& folder) {
  const rlimit none{0, 0};
  setrlimit(RLIMIT_CORE, &none);
  guard_mapped_file("/nowhere");
  SpillFile file(folder, "weights on disk of rank 3", kBytes);
  guard_spill_file(file.mapped(), file.where());
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code no_error;
    const std::string target = std::filesystem::read_symlink(entry.path(), no_error).string();
    const int fd = std::stoi(entry.path().filename().string());
    if (target.find(folder) == std::string::npos) continue;
    if ((fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR && ftruncate(fd, 8192) != 0) _exit(2);
  }
  unsigned sum = 0;
  for (const std::byte b : file.mapped()) sum += static_cast<unsigned>(b);
  asm volatile("" : : "g"(sum));
  _exit(0);
}

TEST(BusGuardDeathTest, APageOfTheSpillFileCannotBeReadAgain) {
  const TempDir folder;
  EXPECT_EXIT(cut_spill_and_read(folder.file("spill")), ::testing::ExitedWithCode(1),
              "spillway: reading the spill file failed at byte 8192, which the page cache had lost "
              "\\(.*/spill, weights on disk of rank 3\\): check the disk, or give another");
}

TEST(BusGuardDeathTest, ASignalOfAnotherKindStaysASignal) {
  const auto raised = [] {
    const rlimit none{0, 0};
    setrlimit(RLIMIT_CORE, &none);
    guard_mapped_file("/nowhere");
    raise(SIGBUS);
    raise(SIGBUS);
  };
  EXPECT_EXIT(raised(), ::testing::KilledBySignal(SIGBUS), "");
}

}  // namespace
}  // namespace spillway::testing

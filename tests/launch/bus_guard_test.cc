// A mapped file that becomes shorter while it is read: one line and exit code 1, in a process of
// its own each time.
#include "launch/bus_guard.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>

#include "runtime/io/mapped_file.h"
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

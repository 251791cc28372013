// SpillFile and ReadAhead: what was written comes back, in any order of slots and steps; a disk
// without room, a file that ends early and folders that cannot be written are Errors.
#include "runtime/io/spill_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <random>

#include "kernels/core/arena.h"
#include "kernels/core/error.h"
#include "kernels/core/int_math.h"
#include "kernels/core/simulated_fault.h"
#include "runtime/io/read_ahead.h"
#include "tests/support/temp_dir.h"

namespace spillway {
namespace {

using testing::TempDir;

std::vector<std::byte> noise(int64_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> out(static_cast<size_t>(n));
  for (std::byte& b : out) b = static_cast<std::byte>(random());
  return out;
}

std::string refusal(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was refused";
}

TEST(SpillFile, KeepsWhatWasWrittenAndHasNoName) {
  const TempDir dir;
  const std::string folder = dir.file("deep/spill");
  const auto data = noise(100'000, 1);
  SpillFile file(folder, "weights", 100'000);
  EXPECT_TRUE(std::filesystem::is_empty(folder));
  EXPECT_EQ(file.bytes(), round_up(100'000, SpillFile::kAlignment));
  file.write(0, std::span(data).first(77'777));
  file.write(77'777, std::span(data).subspan(77'777));
  std::vector<std::byte> back(90'001);
  file.read(9'999, back);
  EXPECT_TRUE(std::equal(back.begin(), back.end(), data.begin() + 9'999));
}

TEST(SpillFile, SaysThatTheDiskIsFull) {
  const TempDir dir;
  // As a full disk, for this process alone.
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit small = before;
  small.rlim_cur = 1 << 20;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string text =
      refusal([&] { SpillFile(dir.file("spill"), "weights on disk of rank 3", 5 << 20); });
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_NE(text.find("needs 5.00 MiB"), std::string::npos) << text;
  EXPECT_NE(text.find("weights on disk of rank 3"), std::string::npos) << text;
  EXPECT_NE(text.find("--spill-dir"), std::string::npos) << text;
}

TEST(SpillFile, SaysThatTheFolderIsNone) {
  const std::string text = refusal([] { SpillFile("/dev/null/spill", "weights", 4096); });
  EXPECT_NE(text.find("cannot make the spill file"), std::string::npos) << text;
  EXPECT_NE(text.find("/dev/null/spill"), std::string::npos) << text;
}

TEST(SpillFile, SaysThatTheDiskFailed) {
  const TempDir dir;
  const auto data = noise(8192, 2);
  std::vector<std::byte> back(8192);
  SpillFile file(dir.file("spill"), "weights", 8192);
  simulate_fault("write disk weights #2");
  file.write(0, data);
  EXPECT_NE(refusal([&] {
              file.write(4096, std::span(data).first(1));
            }).find("spill, weights: writing the spill file failed at byte 4096: Input/output"),
            std::string::npos);
  simulate_fault("read disk weights #2");
  file.read(0, back);
  EXPECT_EQ(back, data);
  EXPECT_NE(refusal([&] {
              file.read(4096, std::span(back).first(10));
            }).find("spill, weights: reading the spill file failed at byte 4096: Input/output"),
            std::string::npos);
  simulate_fault("allocate disk weights");
  EXPECT_NE(refusal([&] {
              SpillFile(dir.file("spill"), "weights", 4096);
            }).find("No space left on device"),
            std::string::npos);
  simulate_fault("");
}

// Pieces of odd sizes side by side, a file of noise, slots.
struct Shelf {
  TempDir dir;
  std::vector<FilePiece> pieces;
  std::vector<std::byte> data;
  std::unique_ptr<SpillFile> file;
  std::unique_ptr<Arena> arena;
  std::vector<std::byte*> slots;

  Shelf(int n_pieces, int n_slots, int64_t most) {
    int64_t at = 0;
    for (int i = 0; i < n_pieces; ++i) {
      const int64_t bytes = 64 * (1 + (i * 7919 + 13) % (most / 64));
      pieces.push_back({at, bytes, "piece " + std::to_string(i)});
      at += bytes;
    }
    data = noise(at, 7);
    file = std::make_unique<SpillFile>(dir.file("spill"), "weights", at);
    file->write(0, data);
    const int64_t slot = ReadAhead::slot_bytes(most);
    arena = std::make_unique<Arena>("slots", n_slots * slot);
    for (int i = 0; i < n_slots; ++i) slots.push_back(arena->take(slot));
  }
};

class ReadAheadSteps : public ::testing::TestWithParam<std::tuple<int, int, int>> {};

TEST_P(ReadAheadSteps, GivesEveryPieceInOrder) {
  const auto [n_pieces, n_slots, n_threads] = GetParam();
  const Shelf shelf(n_pieces, n_slots, 5 << 20);
  ReadAhead reader(*shelf.file, shelf.pieces, shelf.slots, n_threads);
  for (int step = 0; step < 3; ++step) {
    for (const FilePiece& piece : shelf.pieces) {
      const std::byte* got = reader.wait();
      ASSERT_TRUE(std::equal(got, got + piece.bytes, shelf.data.begin() + piece.offset))
          << "step " << step << ", " << piece.name;
      reader.release();
    }
  }
  EXPECT_GE(reader.bytes_read(), 3 * static_cast<int64_t>(shelf.data.size()));
}

INSTANTIATE_TEST_SUITE_P(All, ReadAheadSteps,
                         ::testing::Values(std::tuple(1, 1, 1), std::tuple(1, 3, 2),
                                           std::tuple(2, 3, 2), std::tuple(3, 3, 2),
                                           std::tuple(7, 3, 2), std::tuple(8, 3, 1),
                                           std::tuple(9, 2, 3), std::tuple(10, 4, 4)));

TEST(ReadAhead, AnEndBeforeItsTimeNamesThePiece) {
  const Shelf shelf(6, 2, 1 << 20);
  // The file has no name, but the process has its descriptor.
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code no_error;
    const std::string target = std::filesystem::read_symlink(entry.path(), no_error).string();
    if (target.find(shelf.dir.file("spill")) == std::string::npos) continue;
    const int fd = std::stoi(entry.path().filename().string());
    if ((fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR) {
      ASSERT_EQ(ftruncate(fd, round_up(shelf.pieces[4].offset, SpillFile::kAlignment)), 0);
    }
  }
  ReadAhead reader(*shelf.file, shelf.pieces, shelf.slots, 2);
  const std::string text = refusal([&] {
    for (int i = 0; i < 6; ++i) {
      reader.wait();
      reader.release();
    }
  });
  EXPECT_NE(text.find("reading the spill file failed"), std::string::npos) << text;
  EXPECT_NE(text.find("piece 4"), std::string::npos) << text;
}

TEST(ReadAhead, EndsWhileSlotsAreFull) {
  const Shelf shelf(5, 2, 1 << 20);
  ReadAhead reader(*shelf.file, shelf.pieces, shelf.slots, 2);
  reader.wait();
}

}  // namespace
}  // namespace spillway

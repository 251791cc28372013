// SpillFile and ReadAhead: what was written comes back, in any order of slots and steps, copied or
// as it lies in the page cache; a disk without room, a file that ends early and folders that cannot
// be written are Errors.
#include "runtime/io/spill_file.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <random>
#include <thread>

#include "kernels/core/arena.h"
#include "kernels/core/error.h"
#include "kernels/core/int_math.h"
#include "kernels/core/simulated_fault.h"
#include "runtime/io/read_ahead.h"
#include "tests/support/spill_files.h"
#include "tests/support/temp_dir.h"

namespace spillway {
namespace {

using testing::change_spill_files;
using testing::cut_spill_files;
using testing::forget_spill_files;
using testing::TempDir;

// A file without a name in the kernel's own mount of shared memory, a tmpfs wherever that is.
TEST(SpillFolder, MemoryIsToldFromADisk) {
  EXPECT_FALSE(lies_in_memory("/proc/self/none/such"));
  EXPECT_FALSE(lies_in_memory("/sys"));
  const int shared = memfd_create("spill folder", MFD_CLOEXEC);
  ASSERT_GE(shared, 0);
  const std::string in_memory = "/proc/self/fd/" + std::to_string(shared);
  EXPECT_TRUE(lies_in_memory(in_memory));
  EXPECT_TRUE(lies_in_memory(in_memory + "/not/there/yet"));
  EXPECT_FALSE(lies_in_memory("/proc/../sys"));
  close(shared);
}

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
  simulate_fault("read disk weights #2");  // so that it is read, not mapped
  SpillFile file(dir.file("spill"), "weights", 8192);
  EXPECT_TRUE(file.mapped().empty());
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

  bool cached(const FilePiece& piece) const { return file->cached(piece.offset, piece.bytes); }
  bool right(const FilePiece& piece, const std::byte* got) const {
    return std::equal(got, got + piece.bytes, data.begin() + piece.offset);
  }
};

class ReadAheadSteps : public ::testing::TestWithParam<std::tuple<int, int, int>> {};

TEST_P(ReadAheadSteps, GivesEveryPieceInOrder) {
  const auto [n_pieces, n_slots, n_threads] = GetParam();
  const Shelf shelf(n_pieces, n_slots, 5 << 20);
  for (const InCache in_cache : {InCache::kCopied, InCache::kMapped}) {
    SCOPED_TRACE(in_cache == InCache::kMapped);
    ReadAhead reader(*shelf.file, shelf.pieces, shelf.slots, n_threads, in_cache);
    for (int step = 0; step < 3; ++step) {
      for (const FilePiece& piece : shelf.pieces) {
        ASSERT_TRUE(shelf.right(piece, reader.wait())) << "step " << step << ", " << piece.name;
        reader.release();
      }
    }
    EXPECT_GE(reader.bytes_read(), 3 * static_cast<int64_t>(shelf.data.size()));
  }
}

INSTANTIATE_TEST_SUITE_P(All, ReadAheadSteps,
                         ::testing::Values(std::tuple(1, 1, 1), std::tuple(1, 3, 2),
                                           std::tuple(2, 3, 2), std::tuple(3, 3, 2),
                                           std::tuple(7, 3, 2), std::tuple(8, 3, 1),
                                           std::tuple(9, 2, 3), std::tuple(10, 4, 4)));

// Locked pages stay in the page cache whatever else needs memory.
TEST(ReadAhead, GivesWhatThePageCacheHasAsItLiesThere) {
  const Shelf shelf(4, 3, 1 << 20);
  const auto mapped = shelf.file->mapped();
  ASSERT_EQ(static_cast<int64_t>(mapped.size()), shelf.file->bytes());
  if (mlock(mapped.data(), mapped.size()) != 0) GTEST_SKIP() << "pages cannot be locked here";
  for (std::byte* slot : shelf.slots) std::fill_n(slot, 4096, std::byte{0xab});
  ReadAhead reader(*shelf.file, shelf.pieces, shelf.slots, 2, InCache::kMapped);
  for (int step = 0; step < 3; ++step) {
    for (const FilePiece& piece : shelf.pieces) {
      const std::byte* got = reader.wait();
      EXPECT_EQ(got, mapped.data() + piece.offset) << piece.name;
      EXPECT_TRUE(shelf.right(piece, got)) << piece.name;
      reader.release();
    }
  }
  for (const std::byte* slot : shelf.slots) {
    EXPECT_TRUE(std::all_of(slot, slot + 4096, [](std::byte b) { return b == std::byte{0xab}; }));
  }
}

// Which pages the kernel drops is its own affair: what was not there before and is not there
// afterwards never was.
TEST(ReadAhead, ReadsIntoSlotsWhatThePageCacheLost) {
  const Shelf shelf(7, 3, 1 << 20);
  ASSERT_EQ(forget_spill_files(shelf.dir.file("spill")), 1);
  std::vector<bool> before;
  for (const FilePiece& piece : shelf.pieces) before.push_back(shelf.cached(piece));
  ReadAhead reader(*shelf.file, shelf.pieces, shelf.slots, 2, InCache::kMapped);
  int in_slots = 0;
  for (int step = 0; step < 2; ++step) {
    for (size_t i = 0; i < shelf.pieces.size(); ++i) {
      const FilePiece& piece = shelf.pieces[i];
      const std::byte* got = reader.wait();
      EXPECT_TRUE(shelf.right(piece, got)) << piece.name;
      if (!before[i] && !shelf.cached(piece)) {
        EXPECT_NE(got, shelf.file->mapped().data() + piece.offset) << piece.name;
        ++in_slots;
      }
      reader.release();
    }
  }
  if (in_slots == 0) GTEST_SKIP() << "this file system's page cache keeps what it was told to drop";
}

// Some stretches of pages lie in the page cache, others do not, as far as the kernel obeys.
TEST(SpillFile, ReadsWhatIsPartlyInThePageCache) {
  const TempDir dir;
  constexpr int64_t kBytes = 4 << 20;
  const auto data = noise(kBytes, 3);
  SpillFile file(dir.file("spill"), "weights", kBytes);
  file.write(0, data);
  ASSERT_EQ(forget_spill_files(dir.file("spill")), 1);
  const auto read_some = [](int fd) {
    std::vector<std::byte> some(100'000);
    int refused = posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);  // no pages beside those asked for
    for (int64_t at = 0; at < kBytes; at += 300'000) {
      if (pread(fd, some.data(), some.size(), at) <= 0) ++refused;
    }
    return refused;
  };
  ASSERT_EQ(change_spill_files(dir.file("spill"), read_some), 1);
  Arena arena("read", kBytes);
  std::byte* back = arena.take(kBytes);
  file.read(0, {back, static_cast<size_t>(kBytes)});
  EXPECT_TRUE(std::equal(data.begin(), data.end(), back));
  file.read(8192, {back, 1 << 20});
  EXPECT_TRUE(std::equal(back, back + (1 << 20), data.begin() + 8192));
}

class ReadAheadEnd : public ::testing::TestWithParam<InCache> {};

TEST_P(ReadAheadEnd, BeforeItsTimeNamesThePiece) {
  const Shelf shelf(6, 2, 1 << 20);
  ASSERT_EQ(cut_spill_files(shelf.dir.file("spill"),
                            round_up(shelf.pieces[4].offset, SpillFile::kAlignment)),
            1);
  ReadAhead reader(*shelf.file, shelf.pieces, shelf.slots, 2, GetParam());
  const std::string text = refusal([&] {
    for (int i = 0; i < 6; ++i) {
      reader.wait();
      reader.release();
    }
  });
  EXPECT_NE(text.find("reading the spill file failed"), std::string::npos) << text;
  EXPECT_NE(text.find("piece 4"), std::string::npos) << text;
}

INSTANTIATE_TEST_SUITE_P(CopiedAndMapped, ReadAheadEnd,
                         ::testing::Values(InCache::kCopied, InCache::kMapped));

TEST(ReadAhead, EndsWhileSlotsAreFull) {
  const Shelf shelf(5, 2, 1 << 20);
  ReadAhead reader(*shelf.file, shelf.pieces, shelf.slots, 2);
  reader.wait();
}

TEST(ReadAhead, APieceLiesInTheSamePlaceInEveryStep) {
  const Shelf shelf(7, 3, 1 << 20);
  ReadAhead reader(*shelf.file, shelf.pieces, shelf.slots, 2);
  for (size_t i = 0; i < 3 * shelf.pieces.size(); ++i) {
    const std::byte* there = reader.at(i % shelf.pieces.size());
    ASSERT_EQ(reader.wait(), there) << i;
    reader.release();
  }
}

// What was read before stop() may be taken; then everybody is told, and nobody waits.
TEST(ReadAhead, StopEndsAWait) {
  const Shelf shelf(5, 2, 1 << 20);
  ReadAhead reader(*shelf.file, shelf.pieces, shelf.slots, 2);
  std::string text;
  std::thread taker([&] {
    text = refusal([&] {
      while (true) {
        reader.wait();
        reader.release();
      }
    });
  });
  reader.stop();
  taker.join();
  EXPECT_NE(text.find("is not read any more"), std::string::npos) << text;
  EXPECT_NE(text.find("piece "), std::string::npos) << text;
  EXPECT_NE(refusal([&] { reader.wait(); }), "nothing was refused");
}

}  // namespace
}  // namespace spillway

// Arena over memory that somebody else owns: handed out by the same rules, never touched.
#include "kernels/core/arena.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <utility>

namespace spillway {
namespace {

// Pages that end the process when they are read or written, as a GPU's memory would.
class Untouchable {
 public:
  explicit Untouchable(size_t bytes) : bytes_(bytes) {
    base_ = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT_NE(base_, MAP_FAILED);
  }
  ~Untouchable() { munmap(base_, bytes_); }
  std::byte* data() const { return static_cast<std::byte*>(base_); }

 private:
  size_t bytes_;
  void* base_ = nullptr;
};

TEST(Arena, HandsOutForeignMemoryWithoutTouchingIt) {
  const Untouchable memory(8192);
  {
    Arena arena("device", memory.data(), 8192);
    EXPECT_EQ(arena.bytes(), 8192);
    EXPECT_EQ(arena.name(), "device");
    EXPECT_EQ(arena.take(100), memory.data());
    EXPECT_EQ(arena.take(0), memory.data() + 128);
    Arena moved = std::move(arena);
    EXPECT_EQ(moved.take_array<double>(8), reinterpret_cast<double*>(memory.data() + 128));
    EXPECT_EQ(moved.used(), 192);
    moved.freeze();
    EXPECT_DEATH(moved.take(1), "frozen");
  }
  // Still mapped: the arena did not give it back.
  ASSERT_EQ(mprotect(memory.data(), 8192, PROT_READ | PROT_WRITE), 0);
  memory.data()[8191] = std::byte{1};
}

TEST(Arena, ForeignMemoryHasBounds) {
  const Untouchable memory(4096);
  Arena arena("device", memory.data(), 4096);
  EXPECT_DEATH(arena.take(4097), "4097");
  EXPECT_DEATH(Arena("device", memory.data() + 32, 64), "32");
  EXPECT_DEATH(Arena("device", nullptr, 64), "base");
  EXPECT_EQ(Arena("nothing", nullptr, 0).bytes(), 0);
}

TEST(Arena, OwnMemoryIsZeroedAndAligned) {
  Arena arena("own", 1000);
  Arena moved = std::move(arena);
  std::byte* start = moved.take(1000);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(start) % 4096, 0u);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(start[i], std::byte{0});
}

}  // namespace
}  // namespace spillway

// ThreadPool and Arena: the two things of kernels/core that own a resource.
#include "kernels/core/thread_pool.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "kernels/core/arena.h"
#include "kernels/core/error.h"

namespace spillway {
namespace {

TEST(ThreadPoolTest, EveryWorkerRunsOnce) {
  for (const int n : {1, 2, 3, 8}) {
    ThreadPool pool(n);
    EXPECT_EQ(pool.size(), n);
    for (int round = 0; round < 300; ++round) {
      std::vector<int> calls(static_cast<size_t>(n), 0);  // not atomic: one worker an element
      pool.run([&](int worker) { ++calls[static_cast<size_t>(worker)]; });
      ASSERT_EQ(calls, std::vector<int>(static_cast<size_t>(n), 1));
    }
  }
}

TEST(ThreadPoolTest, CallerIsWorkerZeroAndAPoolOfOneStartsNoThread) {
  ThreadPool one(1);
  ThreadPool two(2);
  const auto self = std::this_thread::get_id();
  one.run([&](int worker) {
    EXPECT_EQ(worker, 0);
    EXPECT_EQ(std::this_thread::get_id(), self);
  });
  two.run([&](int worker) { EXPECT_EQ(std::this_thread::get_id() == self, worker == 0); });
}

TEST(ThreadPoolTest, WakesWorkersThatSleep) {
  ThreadPool pool(4);
  std::atomic<int> sum{0};
  for (int round = 0; round < 5; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // far beyond the spinning
    pool.run([&](int worker) {
      // A slow worker makes the caller sleep too.
      if (worker == 3) std::this_thread::sleep_for(std::chrono::milliseconds(10));
      sum += worker;
    });
    EXPECT_EQ(sum.load(), 6 * (round + 1));
  }
}

TEST(ThreadPoolTest, SeesWhatTheCallerWrote) {
  ThreadPool pool(3);
  int64_t value = 0;
  std::vector<int64_t> seen(3);
  for (int round = 1; round < 2000; ++round) {
    value = round;
    pool.run([&](int worker) { seen[static_cast<size_t>(worker)] = value; });
    ASSERT_EQ(seen, std::vector<int64_t>(3, round));
  }
}

TEST(ThreadPoolTest, PartsCoverOnceAndDifferByAUnitAtMost) {
  ThreadPool pool(3);
  for (const int64_t n : {0, 1, 2, 3, 7, 16, 1000, 1001}) {
    for (const int64_t grain : {1, 4, 16, 2000}) {
      int64_t next = 0, least = n, most = 0;
      for (int worker = 0; worker < 3; ++worker) {
        const Range part = pool.part(worker, n, grain);
        EXPECT_EQ(part.begin, next);
        EXPECT_TRUE(part.begin % grain == 0 || part.begin == n);
        next = part.end;
        least = std::min(least, part.size());
        most = std::max(most, part.size());
      }
      EXPECT_EQ(next, n);
      EXPECT_LE(most - least, grain);
    }
  }
}

TEST(ThreadPoolTest, SharesEveryElementOnce) {
  for (const int n_threads : {1, 2, 3, 8}) {
    ThreadPool pool(n_threads);
    for (const int64_t n : {0, 1, 2, 7, 8, 63, 64, 65, 1000}) {
      std::vector<std::atomic<int>> calls(static_cast<size_t>(n));
      pool.share(n, [&](Range piece) {
        ASSERT_GE(piece.begin, 0);
        ASSERT_LE(piece.end, n);
        for (int64_t i = piece.begin; i < piece.end; ++i) ++calls[static_cast<size_t>(i)];
      });
      for (const std::atomic<int>& count : calls) ASSERT_EQ(count.load(), 1);
    }
  }
}

TEST(ThreadPoolTest, TheFirstWorkersShareAlone) {
  ThreadPool pool(4);
  for (const int n_workers : {1, 2, 4}) {
    std::vector<int> calls(10, 0);
    std::mutex mutex;
    std::set<std::thread::id> threads;
    pool.share(10, n_workers, [&](Range piece) {
      const std::lock_guard<std::mutex> lock(mutex);
      threads.insert(std::this_thread::get_id());
      for (int64_t i = piece.begin; i < piece.end; ++i) ++calls[static_cast<size_t>(i)];
    });
    EXPECT_EQ(calls, std::vector<int>(10, 1));
    EXPECT_LE(threads.size(), static_cast<size_t>(n_workers));
  }
}

// The worker that has the first piece does not come back before the others have done all the rest.
TEST(ThreadPoolTest, OthersTakeWhatASlowWorkerHasNotComeTo) {
  ThreadPool pool(3);
  constexpr int64_t kElements = 300;
  std::atomic<int64_t> others{0};
  pool.share(kElements, [&](Range piece) {
    if (piece.begin > 0) {
      others += piece.size();
      return;
    }
    const auto all_others = [&] { return others.load() + piece.size() == kElements; };
    while (!all_others()) std::this_thread::yield();
  });
  EXPECT_LT(others.load(), kElements);
}

TEST(ThreadPoolTest, AwakeOrAsleepWorkersRun) {
  for (const int awake : {0, 2000}) {
    ThreadPool pool(3);
    pool.stay_awake(std::chrono::microseconds(awake));
    int64_t sum = 0;
    for (int round = 0; round < 200; ++round) {
      std::atomic<int64_t> seen{0};
      pool.share(99, [&](Range piece) { seen += piece.size(); });
      sum += seen.load();
    }
    EXPECT_EQ(sum, 99 * 200);
  }
}

TEST(ThreadPoolTest, PinsAndGivesTheCallerBack) {
  cpu_set_t before, inside, after;
  ASSERT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
  {
    ThreadPool pool(2, true, 1);
    ASSERT_EQ(sched_getaffinity(0, sizeof(inside), &inside), 0);
    EXPECT_EQ(CPU_COUNT(&inside), 1);
    int counts[2] = {0, 0};
    pool.run([&](int worker) {
      cpu_set_t mine;
      if (sched_getaffinity(0, sizeof(mine), &mine) == 0) counts[worker] = CPU_COUNT(&mine);
    });
    EXPECT_EQ(counts[0], 1);
    EXPECT_EQ(counts[1], 1);
  }
  ASSERT_EQ(sched_getaffinity(0, sizeof(after), &after), 0);
  EXPECT_TRUE(CPU_EQUAL(&before, &after));
}

TEST(ThreadPoolDeathTest, NoThreadsIsABug) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(ThreadPool(0), "CHECK failed");
  EXPECT_DEATH(ThreadPool(1).part(1, 10), "CHECK failed");
}

TEST(ArenaTest, HandsOutAlignedZeroedMemoryOnce) {
  Arena arena("weights", 1000);
  EXPECT_EQ(arena.bytes(), 1000);
  std::byte* first = arena.take(1);
  std::byte* second = arena.take(65);
  float* third = arena.take_array<float>(10);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(first) % Arena::kAlignment, 0u);
  EXPECT_EQ(second - first, 64);
  EXPECT_EQ(reinterpret_cast<std::byte*>(third) - second, 128);
  EXPECT_EQ(arena.used(), 64 + 128 + 64);
  for (int i = 0; i < 256; ++i) EXPECT_EQ(first[i], std::byte{0});
  const View2D<double> view = arena.take_view<double>(3, 4);
  EXPECT_EQ(view.rows, 3);
  EXPECT_EQ(view.stride, 4);
  arena.take(arena.bytes() - arena.used());  // the last, not a multiple of the alignment
}

TEST(ArenaTest, EmptyAndMoved) {
  Arena empty("nothing", 0);
  empty.take(0);
  EXPECT_EQ(empty.used(), 0);
  Arena arena("moved", 4096);
  std::byte* start = arena.take(64);
  *start = std::byte{7};
  Arena other(std::move(arena));
  EXPECT_EQ(other.name(), "moved");
  EXPECT_EQ(other.used(), 64);
  EXPECT_EQ(*start, std::byte{7});
  EXPECT_EQ(other.take(64), start + 64);
}

TEST(ArenaTest, MoreThanTheMachineHasIsAnErrorThatNamesIt) {
  try {
    Arena arena("stage 3 weights", int64_t{1} << 60);
    FAIL() << "reserved 2^60 bytes";
  } catch (const Error& error) {
    const std::string what = error.what();
    EXPECT_NE(what.find("stage 3 weights"), std::string::npos) << what;
    EXPECT_NE(what.find("1152921504606846976"), std::string::npos) << what;
    EXPECT_FALSE(error.todo().empty());
  }
}

TEST(ArenaDeathTest, BeyondTheEndAndAfterFreezeAreBugs) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  Arena arena("small", 128);
  EXPECT_DEATH(arena.take(129), "CHECK failed");
  EXPECT_DEATH(arena.take(-1), "CHECK failed");
  arena.take(100);
  EXPECT_DEATH(arena.take(1), "CHECK failed");
  arena.freeze();
  EXPECT_DEATH(arena.take(0), "frozen");
  EXPECT_DEATH(Arena("negative", -1), "CHECK failed");
}

}  // namespace
}  // namespace spillway

// The watchdog: reports a step that is late, once, with what it waits for; never an idle rank.
#include "parallel/watchdog.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <mutex>
#include <thread>
#include <vector>

namespace spillway {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// Collects reports; the watchdog's thread writes, the test reads.
class Reports {
 public:
  void add(const std::string& text) {
    const std::lock_guard<std::mutex> lock(mutex_);
    texts_.push_back(text);
  }
  std::vector<std::string> all() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return texts_;
  }
  // Waits until there are n. A minute is for a machine that does other things, not for ours.
  bool wait_for(size_t n) const {
    const auto end = Clock::now() + std::chrono::minutes(1);
    while (all().size() < n && Clock::now() < end) std::this_thread::sleep_for(milliseconds(1));
    return all().size() >= n;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<std::string> texts_;
};

TEST(Watchdog, ReportsALateStepOnce) {
  Reports reports;
  Watchdog dog(
      milliseconds(30), [] { return std::string("all-reduce 57"); },
      [&](const std::string& text) { reports.add(text); });
  dog.begin(9123);
  EXPECT_EQ(dog.step(), 9123);
  ASSERT_TRUE(reports.wait_for(1));
  std::this_thread::sleep_for(milliseconds(100));
  ASSERT_EQ(reports.all().size(), 1u);
  EXPECT_EQ(reports.all()[0], "step 9123 takes more than 0.0 s, waiting in all-reduce 57");
}

TEST(Watchdog, SaysComputingWhenNothingIsWaitedFor) {
  Reports reports;
  Watchdog dog(
      milliseconds(100), [] { return std::string(); },
      [&](const std::string& text) { reports.add(text); });
  dog.begin(7);
  ASSERT_TRUE(reports.wait_for(1));
  EXPECT_EQ(reports.all()[0], "step 7 takes more than 0.1 s, computing");
}

TEST(Watchdog, AnAllowanceMovesTheDeadlineOfOneStep) {
  Reports reports;
  Watchdog dog(
      milliseconds(20), [] { return std::string(); },
      [&](const std::string& text) { reports.add(text); });
  dog.begin(1, milliseconds(60000));
  std::this_thread::sleep_for(milliseconds(150));
  EXPECT_TRUE(reports.all().empty());
  dog.begin(2);
  ASSERT_TRUE(reports.wait_for(1));
  EXPECT_NE(reports.all()[0].find("step 2"), std::string::npos);
}

TEST(Watchdog, WhatIsNoStepHasANameAndALimitOfItsOwn) {
  Reports reports;
  Watchdog dog(
      milliseconds(1), [] { return std::string("ncclCommInitRank with ranks 0, 1"); },
      [&](const std::string& text) { reports.add(text); });
  {
    const WatchedStep watched(dog, "loading", milliseconds(600000));
    std::this_thread::sleep_for(milliseconds(50));
  }
  EXPECT_TRUE(reports.all().empty());
  const WatchedStep watched(dog, "connecting", milliseconds(100));
  ASSERT_TRUE(reports.wait_for(1));
  EXPECT_EQ(reports.all()[0],
            "connecting takes more than 0.1 s, waiting in ncclCommInitRank with ranks 0, 1");
}

// Two watchdogs would race on a busy machine; what each waits for does not: who computes reports at
// the first look beyond the deadline, who waits not before a third more of it has passed.
TEST(Watchdog, WhoComputesReportsBeforeWhoWaits) {
  for (const bool waits : {false, true}) {
    Reports reports;
    std::atomic<int> described{0};
    std::atomic<int> described_at_report{0};
    std::atomic<Clock::time_point> reported{Clock::time_point()};
    Watchdog dog(
        milliseconds(150),
        [&] {
          ++described;
          return std::string(waits ? "all-reduce 3" : "");
        },
        [&](const std::string& text) {
          described_at_report = described.load();
          reported = Clock::now();
          reports.add(text);
        });
    const auto begun = Clock::now();
    dog.begin(5);
    ASSERT_TRUE(reports.wait_for(1));
    if (waits) {
      EXPECT_NE(reports.all()[0].find("all-reduce 3"), std::string::npos);
      EXPECT_GE(reported.load() - begun, milliseconds(200));
    } else {
      EXPECT_NE(reports.all()[0].find("computing"), std::string::npos);
      EXPECT_GE(reported.load() - begun, milliseconds(150));
      EXPECT_EQ(described_at_report, 1);
    }
  }
}

TEST(Watchdog, EveryStepHasItsOwnDeadlineAndReport) {
  Reports reports;
  Watchdog dog(
      milliseconds(20), [] { return std::string("recv 1"); },
      [&](const std::string& text) { reports.add(text); });
  dog.begin(1);
  ASSERT_TRUE(reports.wait_for(1));
  dog.end();
  dog.begin(2);
  ASSERT_TRUE(reports.wait_for(2));
  EXPECT_NE(reports.all()[1].find("step 2"), std::string::npos);
}

// A step in which the machine did something else for longer than the deadline is late indeed, so
// those are counted here as well.
TEST(Watchdog, IdleAndQuickStepsAreFine) {
  constexpr milliseconds kDeadline(200);
  Reports reports;
  Watchdog dog(
      kDeadline, [] { return std::string(); }, [&](const std::string& text) { reports.add(text); });
  std::this_thread::sleep_for(milliseconds(300));
  size_t late = 0;
  for (int64_t step = 0; step < 2000; ++step) {
    const auto begun = Clock::now();
    dog.begin(step);
    dog.end();
    if (Clock::now() - begun > kDeadline) ++late;
  }
  std::this_thread::sleep_for(milliseconds(300));
  EXPECT_LE(reports.all().size(), late);
}

// In a process of its own, which is stopped in the middle of a step for longer than the deadline
// and ends the step a little after it goes on. Exit code 0: nothing was reported.
[[noreturn]] void be_stopped_in_a_step(int begun) {
  Reports reports;
  {
    Watchdog dog(
        milliseconds(3000), [] { return std::string(); },
        [&](const std::string& text) { reports.add(text); });
    dog.begin(1);
    const char word = 'b';
    const auto start = Clock::now();
    if (::write(begun, &word, 1) != 1) ::_exit(2);
    while (Clock::now() - start < milliseconds(4000)) std::this_thread::sleep_for(milliseconds(10));
    std::this_thread::sleep_for(milliseconds(300));  // looks come every 100
    dog.end();
  }
  ::_exit(reports.all().empty() ? 0 : 1);
}

TEST(Watchdog, AStoppedProcessIsNotLate) {
  int pipe[2];
  ASSERT_EQ(::pipe(pipe), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) be_stopped_in_a_step(pipe[1]);
  char word = 0;
  ASSERT_EQ(::read(pipe[0], &word, 1), 1);
  ::kill(child, SIGSTOP);
  std::this_thread::sleep_for(milliseconds(4500));
  ::kill(child, SIGCONT);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status)) << status;
  EXPECT_EQ(WEXITSTATUS(status), 0);
  ::close(pipe[0]);
  ::close(pipe[1]);
}

TEST(Watchdog, EndsAtOnce) {
  const auto start = Clock::now();
  {
    Watchdog dog(
        std::chrono::minutes(10), [] { return std::string(); }, [](const std::string&) {});
    dog.begin(1);
  }
  EXPECT_LT(Clock::now() - start, std::chrono::minutes(1));
}

}  // namespace
}  // namespace spillway

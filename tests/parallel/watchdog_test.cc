// The watchdog: reports a step that is late, once, with what it waits for; never an idle rank.
#include "parallel/watchdog.h"

#include <gtest/gtest.h>

#include <mutex>
#include <thread>
#include <vector>

namespace spillway {
namespace {

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
  // Waits until there are n, two seconds at most.
  bool wait_for(size_t n) const {
    for (int i = 0; i < 400 && all().size() < n; ++i) {
      std::this_thread::sleep_for(milliseconds(5));
    }
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

TEST(Watchdog, WhoComputesReportsBeforeWhoWaits) {
  Reports reports;
  const auto add = [&](const std::string& text) { reports.add(text); };
  Watchdog waiting(
      milliseconds(600), [] { return std::string("all-reduce 3"); }, add);
  Watchdog computing(
      milliseconds(600), [] { return std::string(); }, add);
  waiting.begin(5);
  computing.begin(5);
  ASSERT_TRUE(reports.wait_for(2));
  EXPECT_NE(reports.all()[0].find("computing"), std::string::npos);
  EXPECT_NE(reports.all()[1].find("all-reduce 3"), std::string::npos);
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

TEST(Watchdog, IdleAndQuickStepsAreFine) {
  Reports reports;
  Watchdog dog(
      milliseconds(200), [] { return std::string(); },
      [&](const std::string& text) { reports.add(text); });
  std::this_thread::sleep_for(milliseconds(300));
  for (int64_t step = 0; step < 2000; ++step) {
    dog.begin(step);
    dog.end();
  }
  std::this_thread::sleep_for(milliseconds(300));
  EXPECT_TRUE(reports.all().empty());
}

TEST(Watchdog, EndsAtOnce) {
  const auto start = std::chrono::steady_clock::now();
  {
    Watchdog dog(
        milliseconds(10000), [] { return std::string(); }, [](const std::string&) {});
    dog.begin(1);
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, milliseconds(1000));
}

}  // namespace
}  // namespace spillway

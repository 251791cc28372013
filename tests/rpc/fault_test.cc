// Every way in which a rank, the coordinator or the network fails, with real sockets: who is named,
// how soon, how often, and that nothing hangs.
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "tests/rpc/tcp_relay.h"
#include "tests/rpc/test_job.h"

namespace spillway {
namespace {

using namespace testing;  // NOLINT: the test kit of this folder
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// A job of n running ranks, rank i in step 100+i waiting in all-reduce i.
void run_all(TestJob& job, int n_ranks) {
  job.join_all(n_ranks);
  for (int rank = 0; rank < n_ranks; ++rank) {
    job.ranks[rank]->set(running(100 + rank, "all-reduce " + std::to_string(rank)));
  }
  ASSERT_TRUE(job.wait_for_state("running"));
}

TEST(Fault, MissingRanksAreAllNamedAndTheOthersTold) {
  TestJob job(4, [](CoordinatorOptions& options) { options.join_timeout = milliseconds(3000); });
  auto here = job.add(2).join();
  const std::string sentence = job.faults.wait();
  EXPECT_EQ(sentence, "ranks 0, 1 and 3 have not joined within 3.0 s (1 of 4 is here)");
  try {
    here.get();
    FAIL() << "rank 2 joined";
  } catch (const Error& error) {
    EXPECT_EQ(error.what(), sentence);
  }
  EXPECT_EQ(job.coordinator->status().state, "failed: " + sentence);
  EXPECT_EQ(TestRank(job.coordinator->address(), 0).join_error(), sentence) << "a late rank";
  EXPECT_EQ(job.faults.count(), 1u);
}

TEST(Fault, ASilentRankIsNamedWithItsLastStepAndWait) {
  TestJob job(3, [](CoordinatorOptions& options) { options.silence_timeout = milliseconds(2500); });
  run_all(job, 3);
  job.ranks[2]->stall();
  const std::string sentence = job.faults.wait();
  EXPECT_TRUE(has(sentence, "rank 2 (host host2, pid 1002) silent for ")) << sentence;
  EXPECT_TRUE(has(sentence, " s in step 102, last waiting in all-reduce 2")) << sentence;
  for (const auto& rank : job.ranks) EXPECT_EQ(rank->faults.wait(), sentence);
  job.ranks[2]->resume();
  job.ranks[1]->kill();  // must not raise a second fault
  std::this_thread::sleep_for(milliseconds(500));
  EXPECT_EQ(job.faults.count(), 1u);
  EXPECT_EQ(job.ranks[0]->faults.count(), 1u);
  EXPECT_EQ(job.ranks[2]->faults.count(), 1u);
}

TEST(Fault, SilenceThatEndsInTimeIsNone) {
  TestJob job(2);
  run_all(job, 2);
  for (int i = 0; i < 2; ++i) {
    job.ranks[1]->stall();
    std::this_thread::sleep_for(milliseconds(1200));
    job.ranks[1]->set(running(200 + i));
    job.ranks[1]->resume();
    EXPECT_TRUE(job.wait_for_step(1, 200 + i));
  }
  EXPECT_EQ(job.faults.count(), 0u) << job.faults.wait();
  EXPECT_EQ(job.ranks[1]->faults.count(), 0u);
  for (const auto& rank : job.ranks) rank->agent().leave();
}

// Heartbeats come from a thread of their own, also while this one computes without a pause.
TEST(Fault, ABusyMainThreadIsNotSilence) {
  TestJob job(1);
  job.join_all(1);
  const auto start = Clock::now();
  volatile uint64_t sum = 0;
  for (int64_t step = 1; step <= 10; ++step) {
    job.ranks[0]->set(running(step));
    while (job.coordinator->status().ranks.at(0).progress.step != step) {
      for (int i = 0; i < 100000; ++i) sum = sum + 1;
      ASSERT_LT(seconds_since(start), kSoon_s) << "no heartbeat with step " << step;
    }
  }
  EXPECT_EQ(job.faults.count(), 0u) << job.faults.wait();
  job.ranks[0]->agent().leave();
}

TEST(Fault, ADeadRankIsNamedAtOnce) {
  TestJob job(3);
  run_all(job, 3);
  const auto start = Clock::now();
  job.ranks[1]->kill();
  EXPECT_EQ(job.faults.wait(),
            "rank 1 (host host1, pid 1001) died in step 101, last waiting in all-reduce 1");
  EXPECT_EQ(job.ranks[0]->faults.wait(), job.faults.wait());
  EXPECT_EQ(job.ranks[2]->faults.wait(), job.faults.wait());
  EXPECT_LT(seconds_since(start), kLongBeforeSilence_s);
  job.ranks[0]->kill();
  job.ranks[2]->kill();
  std::this_thread::sleep_for(milliseconds(300));
  EXPECT_EQ(job.faults.count(), 1u);
}

TEST(Fault, ACutConnectionNamesTheRankAndTellsItOfTheCoordinator) {
  TestJob job(2);
  TcpRelay relay(port_of(job.coordinator->address()));
  auto near = job.add(0).join();
  TestRank far(relay.address(), 1);
  far.join().get();
  near.get();
  const auto start = Clock::now();
  relay.cut();
  EXPECT_EQ(far.faults.wait(), "rank 0 (coordinator) at " + relay.address() + " is gone");
  EXPECT_TRUE(has(job.faults.wait(), "rank 1 (host host1, pid 1001) died while loading"))
      << job.faults.wait();
  EXPECT_LT(seconds_since(start), kLongBeforeSilence_s);
  EXPECT_EQ(far.faults.count(), 1u);
}

TEST(Fault, AHostThatVanishesIsNoticedOnBothSides) {
  TestJob job(2, [](CoordinatorOptions& options) { options.silence_timeout = milliseconds(2500); });
  TcpRelay relay(port_of(job.coordinator->address()));
  auto near = job.add(0).join();
  TestRank far(relay.address(), 1);
  far.join().get();
  near.get();
  far.set(running(9));
  job.ranks[0]->set(running(9));
  ASSERT_TRUE(job.wait_for_state("running"));
  relay.freeze();
  EXPECT_TRUE(has(job.faults.wait(), "rank 1 (host host1, pid 1001) silent for "))
      << job.faults.wait();
  EXPECT_EQ(far.faults.wait(), "rank 0 (coordinator) at " + relay.address() + " is gone");
  EXPECT_EQ(far.faults.count(), 1u);
}

TEST(Fault, TheCoordinatorVanishesWhileARankWaitsForThePlan) {
  TestJob job(2, [](CoordinatorOptions& options) { options.silence_timeout = milliseconds(1000); });
  TcpRelay relay(port_of(job.coordinator->address()));
  TestRank far(relay.address(), 1);
  auto plan = far.join();
  ASSERT_TRUE(job.wait_for_ranks(1));
  std::this_thread::sleep_for(milliseconds(200));
  const auto start = Clock::now();
  relay.freeze();
  EXPECT_THROW(plan.get(), Error);
  EXPECT_LT(seconds_since(start), kLongBeforeSilence_s);
}

TEST(Fault, ARankThatDiesBeforeThePlanIsNamed) {
  TestJob job(2);
  TcpRelay relay(port_of(job.coordinator->address()));
  TestRank far(relay.address(), 1);
  auto plan = far.join();
  ASSERT_TRUE(job.wait_for_ranks(1));
  relay.cut();
  EXPECT_EQ(job.faults.wait(), "rank 1 (host host1, pid 1001) died before the plan was made");
  EXPECT_THROW(plan.get(), Error);
  EXPECT_EQ(far.faults.count(), 0u) << "join() has thrown it";
}

TEST(Fault, AReportEndsTheJobWithItsSentence) {
  TestJob job(2);
  run_all(job, 2);
  const auto start = Clock::now();
  job.ranks[1]->agent().report_fault("blk.3.ffn_up.weight: the file ends early");
  const std::string expected =
      "rank 1 (host host1, pid 1001) reports: blk.3.ffn_up.weight: the file ends early";
  EXPECT_EQ(job.faults.wait(), expected);
  EXPECT_EQ(job.ranks[0]->faults.wait(), expected);
  EXPECT_EQ(job.ranks[1]->faults.wait(), expected);
  EXPECT_LT(seconds_since(start), kLongBeforeSilence_s);
  job.ranks[0]->agent().report_fault("me too");
  std::this_thread::sleep_for(milliseconds(500));
  EXPECT_EQ(job.faults.count(), 1u);
}

TEST(Fault, AReporterThatEndsAtOnceIsQuotedNotCalledDead) {
  TestJob job(2);
  run_all(job, 2);
  job.ranks[1]->agent().report_fault("no memory");
  job.ranks[1]->kill();
  EXPECT_EQ(job.faults.wait(), "rank 1 (host host1, pid 1001) reports: no memory");
}

TEST(Fault, ADeathExplainsTheReportThatItCaused) {
  TestJob job(3, [](CoordinatorOptions& options) { options.report_grace = kLongSilence; });
  run_all(job, 3);
  job.ranks[2]->agent().report_fault("all-reduce 2: a peer is gone");
  job.ranks[2]->set(running(200));
  ASSERT_TRUE(job.wait_for_step(2, 200));  // the report, which was sent before, is there
  job.ranks[1]->kill();
  const std::string sentence = job.faults.wait();
  EXPECT_EQ(sentence.find("rank 1 (host host1, pid 1001) died in step 101"), 0u) << sentence;
  EXPECT_TRUE(has(sentence, "rank 2 (host host2, pid 1002) reports: all-reduce 2")) << sentence;
}

TEST(Fault, TheCoordinatorGoneIsNoticedAtOnce) {
  TestJob job(2);
  run_all(job, 2);
  const std::string address = job.coordinator->address();
  const auto start = Clock::now();
  job.coordinator.reset();
  for (const auto& rank : job.ranks) {
    EXPECT_EQ(rank->faults.wait(), "rank 0 (coordinator) at " + address + " is gone");
  }
  EXPECT_LT(seconds_since(start), kLongBeforeSilence_s);
  for (const auto& rank : job.ranks) {
    rank->agent().report_fault("nobody hears this");
    rank->agent().leave();
    EXPECT_EQ(rank->faults.count(), 1u);
  }
}

TEST(Fault, DestructionEndsWaitingJoins) {
  auto job = std::make_unique<TestJob>(3);
  auto first = job->add(0).join();
  auto second = job->add(1).join();
  ASSERT_TRUE(job->wait_for_ranks(2));
  const auto start = Clock::now();
  job->coordinator.reset();
  EXPECT_THROW(first.get(), Error);
  EXPECT_THROW(second.get(), Error);
  EXPECT_LT(seconds_since(start), kLongBeforeSilence_s);
}

TEST(Fault, DestructionIsBoundedWhateverThePeersDo) {
  TestJob job(2);
  TcpRelay relay(port_of(job.coordinator->address()));
  auto near = job.add(0).join();
  TestRank far(relay.address(), 1);
  far.join().get();
  near.get();
  std::vector<int> raw;
  for (int i = 0; i < 8; ++i)
    raw.push_back(connect_to_loopback(port_of(job.coordinator->address())));
  relay.freeze();
  auto start = Clock::now();
  far.kill();
  EXPECT_LT(seconds_since(start), kLongBeforeSilence_s) << "the worker's end";
  start = Clock::now();
  job.coordinator.reset();
  EXPECT_LT(seconds_since(start), kLongBeforeSilence_s) << "the coordinator's end";
  for (const int fd : raw) ::close(fd);
}

TEST(Fault, NobodyThereIsAnErrorInTime) {
  const std::string address = own_free_address();
  TestRank lonely(address, 3,
                  [](WorkerOptions& options) { options.connect_timeout = milliseconds(600); });
  const std::string reason = lonely.join_error();
  EXPECT_TRUE(has(reason, "no Spillway coordinator answers at " + address)) << reason;
  EXPECT_TRUE(has(reason, "within 0.6 s")) << reason;
  EXPECT_NE(TestRank("127.0.0.1", 0).join_error(), "");
  EXPECT_NE(TestRank("127.0.0.1:0", 0).join_error(), "");
}

TEST(Fault, AnAgentThatNeverJoinsIsHarmless) {
  TestRank idle("127.0.0.1:1", 0);
  idle.agent().report_fault("nothing");
  idle.agent().leave();
  EXPECT_EQ(idle.faults.count(), 0u);
}

}  // namespace
}  // namespace spillway

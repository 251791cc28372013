// Joining, loading, running and leaving when all goes well; who may not join; where it listens.
#include "rpc/coordinator.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <thread>

#include "tests/rpc/tcp_relay.h"
#include "tests/rpc/test_job.h"

namespace spillway {
namespace {

using namespace testing;  // NOLINT: the test kit of this folder

TEST(Coordinator, RanksGetThePlanAndTheCluster) {
  TestJob job(3);
  job.coordinator->set_link({12.5, 3.25, true}, {{0, 2, "peer", 310.5, 4.25}});
  std::vector<std::future<Plan>> plans;
  for (const int rank : {2, 0, 1}) plans.push_back(job.add(rank).join());
  for (std::future<Plan>& plan : plans) {
    EXPECT_EQ(plan_fingerprint(plan.get()), plan_fingerprint(sample_plan(3)));
  }
  ASSERT_EQ(job.planned_with.size(), 3);
  EXPECT_EQ(job.planned_with.ranks[1].host, "host1");
  EXPECT_EQ(job.planned_with.link.latency_us, 12.5);
  for (const auto& rank : job.ranks) {
    ASSERT_EQ(rank->agent().cluster().size(), 3);
    EXPECT_EQ(rank->agent().cluster().ranks[2].pid, 1002);
    EXPECT_EQ(rank->agent().cluster().link.gb_per_s, 3.25);
    ASSERT_NE(rank->agent().cluster().pair(2, 0), nullptr);
    EXPECT_EQ(rank->agent().cluster().pair(2, 0)->gb_per_s, 310.5);
  }
  for (const auto& rank : job.ranks) rank->agent().leave();
  EXPECT_TRUE(job.wait_for_state("ended"));
  EXPECT_EQ(job.faults.count(), 0u);
}

TEST(Coordinator, LeavingIsNoFaultAndEndsThatRankOnly) {
  TestJob job(2, [](CoordinatorOptions& options) { options.silence_timeout = milliseconds(2500); });
  job.join_all(2);
  for (const auto& rank : job.ranks) rank->set(running(1));
  ASSERT_TRUE(job.wait_for_state("running"));
  job.ranks[1]->agent().leave();
  job.ranks[1]->kill();
  std::this_thread::sleep_for(milliseconds(3000));  // beyond the silence timeout
  EXPECT_EQ(job.faults.count(), 0u);
  EXPECT_EQ(job.coordinator->status().state, "running");
  EXPECT_EQ(job.coordinator->status().ranks.at(1).progress.state, "left");
  job.ranks[0]->agent().leave();
  EXPECT_TRUE(job.wait_for_state("ended"));
  job.coordinator.reset();
  EXPECT_EQ(job.ranks[0]->faults.count(), 0u) << job.ranks[0]->faults.wait();
  EXPECT_EQ(job.faults.count(), 0u);
}

TEST(Coordinator, LoadingIsSummedAndItsEndIsAlwaysTold) {
  TestJob job(2);
  job.join_all(2);
  RankProgress progress;
  progress.state = "loading";
  progress.load_total_bytes = 100;
  progress.loaded_bytes = 100;
  job.ranks[0]->set(progress);
  std::this_thread::sleep_for(milliseconds(300));
  EXPECT_EQ(job.loading.count(), 0u) << "the total is not known before every rank has told its own";
  progress.load_total_bytes = 300;
  progress.loaded_bytes = 60;
  job.ranks[1]->set(progress);
  EXPECT_EQ(job.loading.wait(), "160/400");
  EXPECT_EQ(job.coordinator->status().state, "loading");
  for (int i = 0; i < 2; ++i) {
    progress = running(0);
    progress.load_total_bytes = progress.loaded_bytes = i == 0 ? 100 : 300;
    job.ranks[i]->set(progress);
  }
  ASSERT_TRUE(job.wait_for_state("running"));
  const std::pair<int64_t, int64_t> end = {400, 400};
  wait_until([&] { return job.last_loading() == end; });
  EXPECT_EQ(job.last_loading(), end);
  for (const auto& rank : job.ranks) rank->agent().leave();
}

TEST(Coordinator, ALongPlanDoesNotLoseTheRanks) {
  TestJob job(
      2, [](CoordinatorOptions& options) { options.silence_timeout = milliseconds(2000); },
      [](const ClusterSpec& cluster) {
        std::this_thread::sleep_for(milliseconds(3500));  // > silence + the worker's slack
        return sample_plan(cluster.size());
      });
  job.join_all(2);
  std::this_thread::sleep_for(milliseconds(300));
  EXPECT_EQ(job.faults.count(), 0u) << job.faults.wait();
  for (const auto& rank : job.ranks) rank->agent().leave();
}

TEST(Coordinator, AWorkerMayComeBeforeTheCoordinator) {
  const std::string address = own_free_address();
  TestRank early(address, 0);
  std::future<Plan> plan = early.join();
  std::this_thread::sleep_for(milliseconds(500));
  TestJob job(1, [&](CoordinatorOptions& options) { options.listen = address; });
  EXPECT_EQ(plan.get().n_ranks(), 1);
  early.agent().leave();
}

TEST(Coordinator, TheProxyOfTheEnvironmentIsNotUsed) {
  ::setenv("http_proxy", "http://127.0.0.1:1", 1);
  TestJob job(1);
  job.join_all(1);
  EXPECT_NO_THROW(fetch_status(job.coordinator->address(), "", kSoon_s));
  ::unsetenv("http_proxy");
  job.ranks[0]->agent().leave();
}

TEST(Coordinator, WrongSecretIsRejectedAndHarmless) {
  TestJob job(2);
  auto first = job.add(0).join();
  TestRank stranger(job.coordinator->address(), 1,
                    [](WorkerOptions& options) { options.secret = "0123456789abcdeX"; });
  const std::string reason = stranger.join_error();
  EXPECT_TRUE(has(reason, "secret does not match")) << reason;
  EXPECT_FALSE(has(reason, kSecret)) << reason;
  auto second = job.add(1).join();
  EXPECT_EQ(first.get().n_ranks(), 2);
  EXPECT_EQ(second.get().n_ranks(), 2);
  EXPECT_EQ(stranger.faults.count(), 0u);
  for (const auto& rank : job.ranks) rank->agent().leave();
}

TEST(Coordinator, ARankThatIsTakenIsRejectedAndTheFirstStays) {
  TestJob job(2);
  auto first = job.add(0).join();
  ASSERT_TRUE(job.wait_for_ranks(1));
  TestRank twin(job.coordinator->address(), 0,
                [](WorkerOptions& options) { options.inventory.pid = 5555; });
  const std::string reason = twin.join_error();
  EXPECT_TRUE(has(reason, "rank 0 (host host0, pid 5555) is taken")) << reason;
  EXPECT_TRUE(has(reason, "pid 1000")) << reason;
  auto second = job.add(1).join();
  EXPECT_EQ(first.get().n_ranks(), 2);
  second.get();
  for (const auto& rank : job.ranks) rank->agent().leave();
}

TEST(Coordinator, RanksOutOfRangeAreRejected) {
  TestJob job(2);
  for (const int rank : {2, -1, 1 << 30}) {
    TestRank wrong(job.coordinator->address(), rank);
    const std::string reason = wrong.join_error();
    EXPECT_TRUE(has(reason, "rank " + std::to_string(rank) + " is out of range")) << reason;
    EXPECT_TRUE(has(reason, "0 to 1")) << reason;
  }
  EXPECT_EQ(job.faults.count(), 0u);
}

TEST(Coordinator, AnotherModelFileEndsTheJobAndNamesBothRanks) {
  TestJob job(3);
  auto first = job.add(0).join();
  ASSERT_TRUE(job.wait_for_ranks(1));
  TestRank other(job.coordinator->address(), 2,
                 [](WorkerOptions& options) { options.header_hash = 78; });
  for (const std::string& reason : {other.join_error(), job.faults.wait()}) {
    EXPECT_TRUE(has(reason, "rank 2 (host host2, pid 1002) and rank 0 (host host0, pid 1000)"))
        << reason;
    EXPECT_TRUE(has(reason, "different model files")) << reason;
  }
  EXPECT_THROW(first.get(), Error);
  EXPECT_EQ(job.faults.count(), 1u);
  const std::string late = TestRank(job.coordinator->address(), 1).join_error();
  EXPECT_TRUE(has(late, "different model files")) << late;
}

TEST(Coordinator, APlanThatCannotBeMadeRejectsEveryJoinWithItsText) {
  TestJob job(2, {}, [](const ClusterSpec&) -> Plan {
    throw Error("rank 1 needs 3.0 GiB and has 1.0", "", "use more ranks");
  });
  auto first = job.add(0).join();
  const std::string reason = job.add(1).join_error();
  EXPECT_EQ(reason, "rank 1 needs 3.0 GiB and has 1.0 (use more ranks)");
  try {
    first.get();
    FAIL() << "rank 0 joined";
  } catch (const Error& error) {
    EXPECT_EQ(error.what(), reason);
  }
  EXPECT_EQ(job.coordinator->status().state, "failed: " + reason);
  EXPECT_EQ(job.faults.count(), 0u);
}

TEST(Coordinator, ATakenPortIsAnErrorThatSaysSo) {
  int port = 0;
  const int taken = listen_on_loopback(&port);
  const auto listen = [](const std::string& address) -> std::string {
    try {
      TestJob job(1, [&](CoordinatorOptions& options) { options.listen = address; });
      return "";
    } catch (const Error& error) {
      return error.what();
    }
  };
  const std::string own = listen("127.0.0.1:" + std::to_string(port));
  EXPECT_TRUE(has(own, "in use")) << own;
  ::close(taken);
  TestJob job(1);  // another coordinator's port: SO_REUSEPORT must not let two share it
  const std::string other = listen(job.coordinator->address());
  EXPECT_TRUE(has(other, "in use")) << other;
  for (const std::string bad : {"", "127.0.0.1", "127.0.0.1:70000", "127.0.0.1:x", ":80", "::1:80",
                                "[::1:80", "203.0.113.7:0", "no such host:0"}) {
    EXPECT_NE(listen(bad), "") << bad;
  }
}

TEST(Coordinator, WhatIsNotGrpcDoesNoHarm) {
  TestJob job(1);
  const int port = port_of(job.coordinator->address());
  std::vector<int> open;
  for (const std::string& bytes :
       {std::string("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), std::string(100000, '\xff'),
        std::string("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04", 28), std::string()}) {
    const int fd = connect_to_loopback(port);
    ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    open.push_back(fd);
  }
  job.join_all(1);
  job.ranks[0]->set(running(4));
  EXPECT_TRUE(job.wait_for_state("running"));
  for (const int fd : open) ::close(fd);
  job.ranks[0]->agent().leave();
  EXPECT_EQ(job.faults.count(), 0u);
}

}  // namespace
}  // namespace spillway

// post() and finish() of MpiCommunicator, a part of the program of mpi_ranks.cc.
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "kernels/core/error.h"
#include "parallel/mpi_communicator.h"
#include "tests/parallel/shared_mark.h"

namespace spillway {
namespace {

using Clock = std::chrono::steady_clock;

// All ranks are on one host, whose steady clock they share.
int64_t now_ns() { return std::chrono::nanoseconds(Clock::now().time_since_epoch()).count(); }

// Small enough for every fabric to take at once, and so large that none does.
constexpr size_t kSmall = 100;
constexpr size_t kLarge = 3'000'000;

std::vector<std::byte> filled(size_t n, int with) {
  return std::vector<std::byte>(n, static_cast<std::byte>(with));
}

void expect_recv(Communicator& group, size_t n, int with, int from) {
  std::vector<std::byte> bytes(n);
  group.recv(bytes, from);
  EXPECT_EQ(bytes, filled(n, with)) << "message " << with;
}

// A rank that waits for something else, here for its peer's mark in shared time, moves them along.
TEST(MpiPost, GoesOnWhileTheSenderOnlyMakesProgress) {
  const auto world = make_mpi_communicator();
  if (world->size() == 1) GTEST_SKIP() << "needs two ranks";
  EXPECT_FALSE(world->progress());
  world->barrier();
  if (world->rank() == 0) {
    const std::vector<std::byte> message = filled(kLarge, 5);
    const int64_t ticket = world->post(message, 1);
    const auto end = Clock::now() + std::chrono::minutes(1);
    while (world->progress() && Clock::now() < end) {
    }
    EXPECT_FALSE(world->progress()) << "still open after a minute of progress";
    world->finish(ticket);
  } else if (world->rank() == 1) {
    expect_recv(*world, kLarge, 5, 0);
  }
  world->barrier();
}

TEST(MpiPost, ReturnsAtOnceAndKeepsTheOrderWithSends) {
  const auto world = make_mpi_communicator();
  if (world->size() == 1) GTEST_SKIP() << "needs two ranks";
  const size_t sizes[] = {kLarge, kSmall, 0, 2048, 4096, 65536, kLarge, 1};
  testing::SharedMark posted(*world);
  if (world->rank() == 0) {
    std::vector<std::vector<std::byte>> messages;
    std::vector<int64_t> tickets;
    for (const size_t n : sizes) {
      messages.push_back(filled(n, static_cast<int>(messages.size())));
      tickets.push_back(world->post(messages.back(), 1));
    }
    posted.set();
    world->send(filled(kLarge, 77), 1);  // behind them
    for (const int64_t ticket : tickets) world->finish(ticket);
    world->finish(tickets.front());  // again
  } else if (world->rank() == 1) {
    EXPECT_TRUE(posted.wait()) << "post() waits for its receiver";
    int number = 0;
    for (const size_t n : sizes) expect_recv(*world, n, number++, 0);
    expect_recv(*world, kLarge, 77, 0);
  }
  EXPECT_EQ(world->waiting_for(), "");
  world->barrier();
}

// Everybody sends first: with send() nobody would come to the receiving.
TEST(MpiPost, RingWhereAllPostFirst) {
  const auto world = make_mpi_communicator();
  if (world->size() == 1) GTEST_SKIP() << "a ring needs two ranks";
  const int next = (world->rank() + 1) % world->size();
  const int before = (world->rank() + world->size() - 1) % world->size();
  for (int round = 0; round < 20; ++round) {
    const auto first = filled(kLarge, world->rank() + round);
    const auto second = filled(kSmall, world->rank() + 100);
    world->post(first, next);
    const int64_t ticket = world->post(second, next);
    expect_recv(*world, kLarge, before + round, before);
    expect_recv(*world, kSmall, before + 100, before);
    world->finish(ticket);  // of both
  }
}

TEST(MpiPost, FinishWaitsForOneRankAlone) {
  const auto world = make_mpi_communicator();
  if (world->size() < 3) GTEST_SKIP() << "needs three ranks";
  const auto large = filled(kLarge, 5);
  if (world->rank() == 0) {
    const int64_t to_late = world->post(large, 2);
    const int64_t to_ready = world->post(large, 1);
    world->finish(to_ready);
    int64_t finished = now_ns();
    world->send(std::as_bytes(std::span(&finished, 1)), 1);
    world->finish(to_late);
  } else if (world->rank() == 1) {
    expect_recv(*world, kLarge, 5, 0);
    // Rank 2 receives only after this rank has heard that rank 0 is through with its own message.
    int64_t finished = 0;
    world->recv(std::as_writable_bytes(std::span(&finished, 1)), 0);
    world->send(filled(1, 1), 2);
  } else if (world->rank() == 2) {
    expect_recv(*world, 1, 1, 1);
    expect_recv(*world, kLarge, 5, 0);
  }
  world->barrier();
}

TEST(MpiPost, ThePostBeyondTheLastOneWaitsForTheOldest) {
  const auto world = make_mpi_communicator();
  if (world->size() == 1) GTEST_SKIP() << "needs two ranks";
  constexpr size_t kBytes = 70'000;
  constexpr int64_t kMost = Communicator::kMostPosts;
  testing::SharedMark received(*world);
  if (world->rank() == 0) {
    const auto bytes = filled(kBytes, 9);
    for (int64_t i = 0; i < kMost; ++i) world->post(bytes, 1);
    int64_t let_go = 0;
    std::thread receiver([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
      let_go = now_ns();
      received.set();
    });
    int64_t last = 0;
    for (int64_t i = 0; i < kMost; ++i) last = world->post(bytes, 1);
    const int64_t more = now_ns();
    receiver.join();
    world->finish(last);
    EXPECT_GE(more, let_go) << "more posts were open than may be";
  } else if (world->rank() == 1) {
    EXPECT_TRUE(received.wait());
    for (int64_t i = 0; i < 2 * kMost; ++i) expect_recv(*world, kBytes, 9, 0);
  }
  world->barrier();
}

TEST(MpiPost, FinishIsASendToThatRankForTheWatchdog) {
  const auto world = make_mpi_communicator();
  if (world->size() == 1) GTEST_SKIP() << "needs two ranks";
  testing::SharedMark read(*world);
  const auto large = filled(kLarge, 3);
  if (world->rank() == 0) {
    const int64_t ticket = world->post(large, 1);
    EXPECT_EQ(world->waiting_for(), "");
    std::string seen;
    std::thread reader([&] {
      const auto end = Clock::now() + std::chrono::minutes(1);
      while (seen.empty() && Clock::now() < end) seen = world->waiting_for();
      read.set();
    });
    world->finish(ticket);
    reader.join();
    EXPECT_EQ(seen, "send 1 to rank 1");
  } else if (world->rank() == 1) {
    EXPECT_TRUE(read.wait());
    expect_recv(*world, kLarge, 3, 0);
  }
  world->barrier();
}

// When `call` threw Error(reason); 0 when it threw another or none.
template <typename Call>
int64_t thrown_at_ns(const std::string& reason, const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.message() == reason ? now_ns() : 0;
  }
  return 0;
}

// A bound for what happens at once on a machine of ours alone.
constexpr int64_t kSoon_ns = 30'000'000'000;

// Leaves messages in flight on its own communicator, hence last.
TEST(MpiPostAbort, WakesARankThatFinishesAPost) {
  static const auto kBytes = filled(kLarge, 1);  // a send cannot be cancelled: read until the end
  auto outer = make_mpi_communicator();
  if (outer->size() == 1) GTEST_SKIP() << "needs two ranks";
  auto world = make_mpi_communicator();
  int64_t aborted = 0;
  const int next = (world->rank() + 1) % world->size();
  const int64_t ticket = world->post(kBytes, next);
  std::thread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    aborted = now_ns();
    world->abort("rank 1 silent");
  });
  const int64_t thrown = thrown_at_ns("rank 1 silent", [&] { world->finish(ticket); });
  other.join();
  EXPECT_GE(thrown, aborted);
  EXPECT_LT(thrown, aborted + kSoon_ns);
  EXPECT_GT(thrown_at_ns("rank 1 silent", [&] { world->finish(ticket); }), 0);
  EXPECT_GT(thrown_at_ns("rank 1 silent", [&] { world->post(kBytes, next); }), 0);
  outer->barrier();
}

}  // namespace
}  // namespace spillway

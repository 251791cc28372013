// MpiCommunicator, run by ctest under mpirun with 3 and with 5 ranks. Every rank runs the same
// tests in the same order. A rank whose expectation fails ends the whole job through MPI_Abort, so
// that the others do not wait for it.
#include <gtest/gtest.h>
#include <mpi.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <thread>
#include <utility>

#include "kernels/core/error.h"
#include "parallel/mesh.h"
#include "parallel/mpi_communicator.h"
#include "parallel/planner.h"
#include "parallel/probe.h"
#include "tests/parallel/model_shapes.h"
#include "tests/parallel/shared_mark.h"

namespace spillway {
namespace {

using Clock = std::chrono::steady_clock;

// Numbers whose sum depends on the order of adding, known to every rank.
double value_of(int rank, int64_t i) {
  const auto mixed = static_cast<uint64_t>(i * 1000003 + rank * 7919 + 1) * 0x9E3779B97F4A7C15u;
  const double fraction = static_cast<double>(mixed >> 11) * 0x1p-53;
  return std::ldexp(fraction - 0.5, static_cast<int>(mixed % 60));
}

std::vector<double> serial_sum(int size, int64_t n) {
  std::vector<double> sum(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    double value = value_of(0, i);
    for (int r = 1; r < size; ++r) value += value_of(r, i);
    sum[i] = value;
  }
  return sum;
}

bool same_bits(const std::vector<double>& a, const std::vector<double>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), 8 * a.size()) == 0);
}

void expect_sums(Communicator& group, const std::vector<int64_t>& sizes) {
  for (const int64_t n : sizes) {
    std::vector<double> values(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) values[i] = value_of(group.rank(), i);
    group.all_reduce(values);
    EXPECT_TRUE(same_bits(values, serial_sum(group.size(), n))) << n << " values";
  }
}

const std::vector<int64_t> kSizes = {0,    1,    2,    3,    4,     7,      100,    576,
                                     1023, 1024, 1025, 4096, 30000, 131072, 200001, 1000000};

TEST(Mpi, SumsInRankOrderOfEverySize) {
  const auto world = make_mpi_communicator();
  expect_sums(*world, kSizes);
}

// Few exchanges each: on a busy machine every one may cost a time slice of another process.
TEST(Mpi, SumsInPiecesThroughASmallStagingBuffer) {
  const std::pair<int64_t, std::vector<int64_t>> cases[] = {
      {0, {0, 1, 2, 23}}, {8, {7}}, {100, {60, 61}}, {1000, {1000, 1025}}, {100000, {30001}}};
  for (const auto& [staging_bytes, sizes] : cases) {
    const auto world = make_mpi_communicator(staging_bytes);
    expect_sums(*world, sizes);
  }
}

TEST(Mpi, SumsOfSpecialValues) {
  const auto world = make_mpi_communicator();
  std::vector<double> values = {-0.0, world->rank() == 0 ? HUGE_VAL : 1.0, 1e308, NAN};
  world->all_reduce(values);
  EXPECT_TRUE(std::signbit(values[0]));  // nothing is added to a positive zero
  EXPECT_EQ(values[1], HUGE_VAL);
  EXPECT_EQ(values[2], world->size() > 1 ? HUGE_VAL : 1e308);
  EXPECT_TRUE(std::isnan(values[3]));
}

TEST(Mpi, AllGather) {
  const auto world = make_mpi_communicator();
  for (const size_t n : {0, 1, 1000, 300000}) {
    std::vector<std::byte> mine(n, static_cast<std::byte>(world->rank() + 1));
    std::vector<std::byte> all(n * static_cast<size_t>(world->size()));
    world->all_gather(mine, all);
    for (int r = 0; r < world->size(); ++r) {
      const std::vector<std::byte> wanted(n, static_cast<std::byte>(r + 1));
      const std::byte* got = all.data() + n * static_cast<size_t>(r);
      EXPECT_TRUE(std::equal(wanted.begin(), wanted.end(), got)) << n << " bytes of rank " << r;
    }
    // In place: mine is this rank's slot.
    std::vector<std::byte> place(all.size());
    const auto own = std::span(place).subspan(n * static_cast<size_t>(world->rank()), n);
    std::copy(mine.begin(), mine.end(), own.begin());
    world->all_gather(own, place);
    EXPECT_EQ(place, all);
  }
}

TEST(Mpi, BroadcastFromEveryRoot) {
  const auto world = make_mpi_communicator();
  for (int root = 0; root < world->size(); ++root) {
    for (const size_t n : {0, 1, 5000, 400000}) {
      const std::vector<std::byte> wanted(n, static_cast<std::byte>(root + 17));
      std::vector<std::byte> bytes(n);
      if (world->rank() == root) bytes = wanted;
      world->broadcast(bytes, root);
      EXPECT_EQ(bytes, wanted) << n << " bytes from " << root;
    }
  }
}

TEST(Mpi, RingOfMessages) {
  const auto world = make_mpi_communicator();
  if (world->size() == 1) GTEST_SKIP() << "a ring needs two ranks";
  const int next = (world->rank() + 1) % world->size();
  const int before = (world->rank() + world->size() - 1) % world->size();
  for (const size_t n : {0, 1, 2304, 1000000}) {
    std::vector<std::byte> bytes(n);
    if (world->rank() == 0) {
      std::fill(bytes.begin(), bytes.end(), std::byte{1});
      world->send(bytes, next);
      world->recv(bytes, before);
    } else {
      world->recv(bytes, before);
      for (std::byte& byte : bytes) byte = static_cast<std::byte>(std::to_integer<int>(byte) + 1);
      world->send(bytes, next);
    }
    const auto wanted =
        static_cast<std::byte>(world->rank() == 0 ? world->size() : world->rank() + 1);
    for (const std::byte byte : bytes) ASSERT_EQ(byte, wanted);
  }
}

TEST(Mpi, AMessageOfAnotherLengthIsAnError) {
  const auto world = make_mpi_communicator();
  if (world->size() == 1) GTEST_SKIP() << "needs two ranks";
  std::vector<std::byte> bytes(100);
  for (const size_t expected : {200, 50}) {  // too short, too long
    if (world->rank() == 0) {
      world->send(bytes, 1);
    } else if (world->rank() == 1) {
      std::vector<std::byte> other(expected);
      EXPECT_THROW(world->recv(other, 0), Error);
    }
    world->barrier();
  }
}

// All ranks are on one host, whose steady clock they share.
int64_t now_ns() { return std::chrono::nanoseconds(Clock::now().time_since_epoch()).count(); }

TEST(Mpi, BarrierWaitsForTheLast) {
  const auto world = make_mpi_communicator();
  for (int late = 0; late < world->size(); ++late) {
    world->barrier();
    if (world->rank() == late) std::this_thread::sleep_for(std::chrono::milliseconds(60));
    int64_t entered = now_ns();
    world->barrier();
    const int64_t left = now_ns();
    world->broadcast(std::as_writable_bytes(std::span(&entered, 1)), late);
    EXPECT_GE(left, entered) << "left before rank " << late << " came";
  }
}

TEST(Mpi, SplitByColourAndReversedKey) {
  const auto world = make_mpi_communicator();
  const int last = world->size() - 1;
  const auto reversed = world->split(4, -world->rank());
  ASSERT_NE(reversed, nullptr);
  EXPECT_EQ(reversed->size(), world->size());
  EXPECT_EQ(reversed->rank(), last - world->rank());
  expect_sums(*reversed, {1, 1000, 200000});

  const auto part = world->split(world->rank() == last ? -1 : world->rank() % 2, world->rank());
  if (world->rank() == last) {
    EXPECT_EQ(part, nullptr);
  } else {
    EXPECT_EQ(part->rank(), world->rank() / 2);
    expect_sums(*part, {1, 1000, 200000});
    const auto alone = part->split(part->rank(), 0);
    EXPECT_EQ(alone->size(), 1);
    expect_sums(*alone, {0, 1, 1000});
  }
  expect_sums(*world, {10});  // the parent still works beside its children
}

TEST(Mpi, MeshOfAPlan) {
  auto world = make_mpi_communicator();
  const int n = world->size();
  const ModelSpec model = testing::smollm2();
  for (const auto& split : all_splits(model, n, false)) {
    PlanRequest request;
    request.split = split;
    const Plan plan = make_plan(model, assumed_cluster(n), request);
    Mesh mesh = build_mesh(plan, make_mpi_communicator());
    expect_sums(*mesh.tp, {576});
    // A token of data goes through all stages, and every rank of a stage gets the same.
    double value = 1;
    const auto bytes = std::as_writable_bytes(std::span(&value, 1));
    if (mesh.receives_from >= 0) mesh.world->recv(bytes, mesh.receives_from);
    EXPECT_EQ(value, mesh.stage + 1);
    value += 1;
    for (const int to : mesh.sends_to) mesh.world->send(bytes, to);
  }
}

TEST(Mpi, WaitingForIsReadFromAnotherThread) {
  const auto world = make_mpi_communicator();
  if (world->size() == 1) GTEST_SKIP() << "needs two ranks";
  EXPECT_EQ(world->waiting_for(), "");
  testing::SharedMark read(*world);
  std::byte byte{};
  if (world->rank() == 1) {
    std::string seen;
    std::thread reader([&] {
      const auto end = Clock::now() + std::chrono::minutes(1);
      while (seen.empty() && Clock::now() < end) seen = world->waiting_for();
      read.set();
    });
    world->recv({&byte, 1}, 0);
    reader.join();
    EXPECT_EQ(seen, "recv 1 from rank 0");
  } else if (world->rank() == 0) {
    EXPECT_TRUE(read.wait());
    world->send({&byte, 1}, 1);
  }
  EXPECT_EQ(world->waiting_for(), "");
  world->barrier();
}

TEST(Mpi, ProbeOfTheLinkIsTheSameOnAllRanks) {
  const auto world = make_mpi_communicator();
  const LinkSpec link = probe_link(*world);
  EXPECT_TRUE(link.measured);
  if (world->size() > 1) {
    EXPECT_GT(link.latency_us, 0);
    EXPECT_GE(link.row_sum_us, link.latency_us);
    EXPECT_GT(link.gb_per_s, 0);
  }
  std::vector<double> all(static_cast<size_t>(world->size()));
  world->all_gather(std::as_bytes(std::span(&link.latency_us, 1)),
                    std::as_writable_bytes(std::span(all)));
  for (const double other : all) EXPECT_EQ(other, link.latency_us);
  if (world->rank() == 0) {
    std::printf("link of %d ranks: %.1f us, %.2f GB/s\n", world->size(), link.latency_us,
                link.gb_per_s);
  }
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

// These leave messages in flight on their own communicators, hence last.
TEST(MpiAbort, WakesAWaitingCallAndEverythingLater) {
  auto outer = make_mpi_communicator();  // keeps the ranks together afterwards
  if (outer->size() == 1) GTEST_SKIP() << "needs two ranks";
  auto world = make_mpi_communicator();
  const auto part = world->split(0, world->rank());
  const std::string reason = "rank 2 silent in step 9123";
  std::vector<std::byte> bytes(1000);
  int64_t aborted = 0;
  std::thread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    aborted = now_ns();
    world->abort(reason);
  });
  const int64_t thrown = thrown_at_ns(reason, [&] {
    if (world->rank() % 2 == 0) {
      part->recv(bytes, (world->rank() + 1) % world->size());
    } else {
      std::vector<double> values(5000);
      part->all_reduce(values);
    }
  });
  other.join();
  EXPECT_GE(thrown, aborted);
  EXPECT_LT(thrown, aborted + kSoon_ns);
  EXPECT_FALSE(world->healthy());
  EXPECT_FALSE(part->healthy());
  EXPECT_EQ(world->waiting_for(), "");
  const int64_t after = now_ns();
  EXPECT_GT(thrown_at_ns(reason, [&] { world->barrier(); }), 0);
  EXPECT_GT(thrown_at_ns(reason, [&] { world->split(0, 0); }), 0);
  EXPECT_TRUE(outer->healthy());  // other families go on
  world.reset();                  // does not hang
  EXPECT_LT(now_ns(), after + kSoon_ns);
  outer->barrier();
}

TEST(MpiAbort, WakesAnIdleRankThatNaps) {
  auto outer = make_mpi_communicator();
  if (outer->size() == 1) GTEST_SKIP() << "needs two ranks";
  auto world = make_mpi_communicator();
  int64_t aborted = 0;
  std::thread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(400));  // naps begin after 50
    aborted = now_ns();
    world->abort("stop");
  });
  std::vector<std::byte> bytes(8);
  const int from = world->rank() == 0 ? 1 : 0;
  const int64_t thrown = thrown_at_ns("stop", [&] { world->recv(bytes, from); });
  other.join();
  EXPECT_GE(thrown, aborted);
  EXPECT_LT(thrown, aborted + kSoon_ns);
  outer->barrier();
}

// A rank that fails must not leave the others waiting for it.
class EndTheJobOnFailure final : public ::testing::EmptyTestEventListener {
  void OnTestEnd(const ::testing::TestInfo& info) override {
    if (info.result()->Failed()) MPI_Abort(MPI_COMM_WORLD, 1);
  }
};

}  // namespace
}  // namespace spillway

int main(int argc, char** argv) {
  int level = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &level);
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  ::testing::GTEST_FLAG(brief) = rank != 0;  // one rank reports what passes
  ::testing::InitGoogleTest(&argc, argv);
  auto& listeners = ::testing::UnitTest::GetInstance()->listeners();
  listeners.Append(new spillway::EndTheJobOnFailure);  // the listeners own it
  const int failed = RUN_ALL_TESTS();
  MPI_Finalize();
  return failed;
}

// What of the hops between stages is decided without a GPU: which links go from GPU to GPU, where
// the words and slots of a link lie, what the front is told.
#include "kernels/cuda/hop.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "parallel/hop_report.h"
#include "tests/support/thread_communicator.h"

namespace spillway {
namespace {

HopSeat seat(const std::string& host, int gpu) {
  HopSeat out;
  std::copy(host.begin(), host.end(), out.place.host.begin());
  const std::string uuid = "GPU-" + host + std::to_string(gpu);
  const std::string pci = "0:" + std::to_string(gpu);
  std::copy(uuid.begin(), uuid.end(), out.place.uuid.begin());
  std::copy(pci.begin(), pci.end(), out.place.pci.begin());
  static int process = 0;
  out.place.process = ++process;
  out.gpu = 1;
  return out;
}

HopSeat on_cpu(const std::string& host) {
  HopSeat out = seat(host, 0);
  out.place.uuid = {};
  out.place.pci = {};
  out.gpu = 0;
  return out;
}

constexpr CommChoice kAuto = CommChoice::kAuto;

TEST(HopObstacle, GpusOfOneHostReachEachOther) {
  const std::vector<HopSeat> seats = {seat("one", 0), seat("one", 1), seat("two", 0)};
  EXPECT_EQ(hop_obstacle(seats, 0, 1, kAuto), "");
  EXPECT_EQ(hop_obstacle(seats, 0, 1, CommChoice::kPeer), "");
  EXPECT_EQ(hop_obstacle(seats, 0, 1, CommChoice::kNccl), "");  // that is about sums
  EXPECT_EQ(hop_obstacle(seats, 0, 1, CommChoice::kStaged), "--comm staged");
  EXPECT_EQ(hop_obstacle(seats, 1, 2, kAuto), "ranks 1 and 2 are on different hosts");
  EXPECT_EQ(hop_obstacle(seats, 2, 1, kAuto), "ranks 1 and 2 are on different hosts");
}

TEST(HopObstacle, CpusAndSharedGpusGoThroughTheHost) {
  EXPECT_EQ(hop_obstacle({seat("one", 0), on_cpu("one")}, 0, 1, kAuto),
            "rank 1 computes on its CPU");
  EXPECT_EQ(hop_obstacle({on_cpu("one"), seat("one", 0)}, 0, 1, kAuto),
            "rank 0 computes on its CPU");
  const std::vector<HopSeat> two = {seat("one", 0), seat("one", 0)};
  EXPECT_EQ(hop_obstacle(two, 0, 1, kAuto), "ranks 0 and 1 share GPU 0:0");
  // Somebody else's kernels on the receiver's GPU; CPUs, and GPUs that only look alike, do no harm.
  std::vector<HopSeat> seats = {seat("one", 0), seat("one", 1), seat("one", 1),
                                on_cpu("one"),  on_cpu("one"),  seat("two", 0)};
  EXPECT_EQ(hop_obstacle(seats, 0, 1, kAuto), "ranks 1 and 2 share GPU 0:1");
  seats.erase(seats.begin() + 2);
  EXPECT_EQ(hop_obstacle(seats, 0, 1, kAuto), "");
  seats[1].place.process = seats[0].place.process;
  EXPECT_EQ(hop_obstacle(seats, 0, 1, kAuto), "ranks 0 and 1 are one process");
}

// Ranks beyond the plan's take no part: three of four.
TEST(HopSeats, AreKnownToAllRanksOfThePlan) {
  testing::run_ranks(4, [](std::unique_ptr<Communicator> world) {
    const int rank = world->rank();
    if (rank == 3) return;
    HopSeat mine;
    mine.gpu = rank;
    mine.failed = rank == 2 ? 1 : 0;
    mine.place.major = 80 + rank;
    const std::vector<HopSeat> seats = gather_hop_seats(*world, 3, mine);
    ASSERT_EQ(seats.size(), 3u);
    for (int r = 0; r < 3; ++r) {
      EXPECT_EQ(seats[static_cast<size_t>(r)].gpu, r);
      EXPECT_EQ(seats[static_cast<size_t>(r)].place.major, 80 + r);
      EXPECT_EQ(seats[static_cast<size_t>(r)].failed, r == 2 ? 1 : 0);
    }
  });
}

TEST(HopReports, ReachTheFront) {
  testing::run_ranks(4, [](std::unique_ptr<Communicator> world) {
    const int rank = world->rank();
    if (rank == 3) return;
    std::vector<HopReport> mine;
    if (rank == 0) {
      mine = staged_hops({HopSeat{}, HopSeat{}, HopSeat{}}, 0, {2}, kAuto);
      mine.push_back({0, 1, "", 4.06, 310.4, 512});
    }
    if (rank == 1) mine.push_back({1, 2, std::string(1000, 'y')});
    const std::vector<HopReport> all = gather_hop_reports(*world, 3, mine);
    if (rank != 0) {
      EXPECT_TRUE(all.empty());
      return;
    }
    EXPECT_EQ(hop_report_text(all),
              "hops between stages\n"
              "  0 -> 2  host memory and MPI: rank 0 computes on its CPU\n"
              "  0 -> 1  peer, 4.1 us a row, 310 GB/s 512 rows\n"
              "  1 -> 2  host memory and MPI: " +
                  std::string(511, 'y') + "\n");
  });
  EXPECT_EQ(hop_report_text({}), "");
}

TEST(HopLayout, PartsDoNotOverlap) {
  for (const int64_t rows : {1, 63, 512}) {
    for (const int64_t dim : {4, 576, 8192}) {
      const cuda::HopLayout at = cuda::hop_layout(true, rows, dim);
      const std::vector<int64_t> words = {at.full, at.receiver_clock, at.receiver_blocks, at.spare};
      for (size_t i = 0; i < words.size(); ++i) {
        EXPECT_EQ(words[i], static_cast<int64_t>(i) * cuda::kHopWordBytes);
      }
      EXPECT_GE(at.senders, at.spare + cuda::kHopWordBytes);
      EXPECT_GE(at.slots, at.senders + cuda::kMostHopReceivers * 3 * cuda::kHopWordBytes);
      EXPECT_EQ(at.slots % 4096, 0);
      EXPECT_GE(at.bytes, at.slots + 2 * rows * dim * 4);
      EXPECT_LT(at.bytes, at.slots + 2 * rows * dim * 4 + (2 << 20));
      EXPECT_EQ(at.bytes % (2 << 20), 0);
      // Words lie at the same places whether or not there are slots.
      const cuda::HopLayout sender = cuda::hop_layout(false, rows, dim);
      EXPECT_EQ(sender.senders, at.senders);
      EXPECT_EQ(sender.bytes, 2 << 20);
    }
  }
}

}  // namespace
}  // namespace spillway

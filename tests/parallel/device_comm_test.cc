// What of the sums between GPUs is decided without a GPU: which fabric carries them, which ranks
// can reach each other, what the ranks agree on, the bytes of the ledger.
#include <gtest/gtest.h>

#include "kernels/core/error.h"
#include "kernels/cuda/peer.h"
#include "parallel/agreement.h"
#include "parallel/comm_report.h"
#include "parallel/gpu_ledger.h"
#include "parallel/rank_place.h"
#include "tests/support/thread_communicator.h"

namespace spillway {
namespace {

FabricReport works(double large_us = 0) { return {true, "", 5, large_us}; }
FabricReport fails() { return {true, "the cable is missing", 0, 0}; }

std::pair<CommChoice, CommChoice> chosen(CommChoice choice, int size, const FabricReport& peer,
                                         const FabricReport& nccl) {
  CommReport report;
  report.peer = peer;
  report.nccl = nccl;
  choose_fabrics(choice, size, report);
  return {report.small, report.large};
}

using Pair = std::pair<CommChoice, CommChoice>;
constexpr CommChoice kAuto = CommChoice::kAuto;
constexpr CommChoice kPeer = CommChoice::kPeer;
constexpr CommChoice kNccl = CommChoice::kNccl;
constexpr CommChoice kStaged = CommChoice::kStaged;

TEST(CommChoice, TakesTheQuickerForManyRows) {
  EXPECT_EQ(chosen(kAuto, 2, works(80), works(60)), Pair(kPeer, kNccl));
  EXPECT_EQ(chosen(kAuto, 4, works(60), works(80)), Pair(kPeer, kPeer));
}

TEST(CommChoice, WithoutAMeasurementGoesByTheNumberOfRanks) {
  EXPECT_EQ(chosen(kAuto, 2, works(), works()), Pair(kPeer, kPeer));
  EXPECT_EQ(chosen(kAuto, 3, works(), works()), Pair(kPeer, kNccl));
  EXPECT_EQ(chosen(kAuto, 3, works(), {}), Pair(kPeer, kPeer));  // NCCL was not tried
}

TEST(CommChoice, FallsBackToWhatWorks) {
  EXPECT_EQ(chosen(kAuto, 2, works(50), fails()), Pair(kPeer, kPeer));
  EXPECT_EQ(chosen(kAuto, 2, fails(), works(50)), Pair(kNccl, kNccl));
  EXPECT_EQ(chosen(kAuto, 2, fails(), fails()), Pair(kStaged, kStaged));
}

TEST(CommChoice, APinnedFabricCarriesAllOrRefuses) {
  EXPECT_EQ(chosen(kPeer, 4, works(), {}), Pair(kPeer, kPeer));
  EXPECT_EQ(chosen(kNccl, 2, {}, works()), Pair(kNccl, kNccl));
  EXPECT_EQ(chosen(kStaged, 2, {}, {}), Pair(kStaged, kStaged));
  for (const CommChoice choice : {kPeer, kNccl}) {
    try {
      chosen(choice, 2, fails(), fails());
      FAIL() << comm_choice_name(choice) << " was taken";
    } catch (const Error& error) {
      const std::string text = error.what();
      EXPECT_NE(text.find("the cable is missing"), std::string::npos) << text;
      EXPECT_NE(text.find(std::string("--comm ") + comm_choice_name(choice)), std::string::npos)
          << text;
    }
  }
}

TEST(CommReport, SaysWhatWasFoundAndChosen) {
  CommReport report;
  report.peer = works(61.94);
  report.nccl = fails();
  report.large_rows = 409;
  report.pushes = {{0, 1, 310.4}};
  choose_fabrics(kAuto, 2, report);
  EXPECT_EQ(comm_report_text(report, 2, 64),
            "sums of 2 GPUs: peer\n"
            "  peer    5.0 us a row, 61.9 us 409 rows\n"
            "  nccl    no: the cable is missing\n"
            "  0 -> 1  310 GB/s\n");
  report.nccl = works(48);
  choose_fabrics(kAuto, 2, report);
  EXPECT_EQ(comm_report_text(report, 2, 64).substr(0, 52),
            "sums of 2 GPUs: peer up to 64 rows, nccl beyond\n  pe");
}

RankPlace place(const char* host, const char* uuid, const char* pci, int process) {
  RankPlace out;
  std::copy_n(host, std::char_traits<char>::length(host), out.host.begin());
  std::copy_n(uuid, std::char_traits<char>::length(uuid), out.uuid.begin());
  std::copy_n(pci, std::char_traits<char>::length(pci), out.pci.begin());
  out.process = process;
  out.major = 9;
  return out;
}

void expect_obstacle(const std::vector<RankPlace>& places, const std::string& part) {
  const std::string text = peer_obstacle(places, 8);
  EXPECT_NE(text.find(part), std::string::npos) << "\"" << text << "\"";
}

TEST(RankPlace, SaysWhoCannotReachWhom) {
  const RankPlace a = place("one boot", "GPU-1", "0:1", 10);
  const RankPlace b = place("one boot", "GPU-2", "0:2", 11);
  EXPECT_EQ(peer_obstacle({a, b}, 8), "");
  EXPECT_EQ(shared_gpu({a, b}), "");
  expect_obstacle({a, b, place("two boot", "GPU-3", "0:3", 12)},
                  "0 and 2 of the group are on diff");
  expect_obstacle({a, b, place("one reboot", "GPU-3", "0:3", 12)}, "different hosts");
  expect_obstacle({a, b, place("one boot", "GPU-2", "0:2", 12)}, "1 and 2 of the group share GPU");
  // Two parts of one GPU have one place on the bus.
  expect_obstacle({a, b, place("one boot", "MIG-3", "0:1", 12)}, "0 and 2 of the group share GPU");
  expect_obstacle({a, b, place("one boot", "GPU-3", "0:3", 10)}, "one process");
  // Two containers of one host count their processes alike.
  RankPlace elsewhere = place("one boot", "GPU-3", "0:3", 10);
  elsewhere.pid_space = a.pid_space + 1;
  EXPECT_EQ(peer_obstacle({a, b, elsewhere}, 8), "");
  EXPECT_NE(rank_place_of({}).pid_space, 0u);
  expect_obstacle(std::vector<RankPlace>(9, a), "at most 8 ranks, the group has 9");
  // The same place on the bus of another host is another GPU.
  EXPECT_EQ(shared_gpu({a, place("two boot", "GPU-2", "0:1", 10)}), "");
  EXPECT_NE(shared_gpu({a, place("two boot", "GPU-1", "0:4", 10)}), "");
}

TEST(RankPlace, IsGatheredFromAllRanks) {
  testing::run_ranks(3, [](std::unique_ptr<Communicator> group) {
    cuda::DeviceInfo device;
    device.uuid = "GPU-" + std::to_string(group->rank());
    device.pci = std::string(100, 'x');  // longer than its room
    device.major = 8;
    const std::vector<RankPlace> places = gather_places(*group, device);
    ASSERT_EQ(places.size(), 3u);
    EXPECT_STREQ(places[2].uuid.data(), "GPU-2");
    EXPECT_EQ(std::string(places[1].pci.data()), std::string(31, 'x'));
    EXPECT_EQ(places[0].host, places[2].host);
    EXPECT_EQ(places[0].major, 8);
  });
}

TEST(Agreement, TheFirstObstacleIsEverybodys) {
  testing::run_ranks(3, [](std::unique_ptr<Communicator> group) {
    EXPECT_EQ(first_obstacle(*group, ""), "");
    const int rank = group->rank();
    EXPECT_EQ(first_obstacle(*group, rank == 0 ? "" : "no way " + std::to_string(rank)),
              "rank 1 of the group: no way 1");
    EXPECT_EQ(first_obstacle(*group, rank == 0 ? "" : "no way", {4, 6, 7}), "rank 6: no way");
    const std::string most = first_obstacle(*group, std::string(10000, 'y'));
    EXPECT_EQ(most, "rank 0 of the group: " + std::string(511, 'y'));
    EXPECT_EQ(greatest(*group, rank == 1 ? 7.5 : -1.0), 7.5);
    EXPECT_EQ(obstacle_of([] {}), "");
    EXPECT_EQ(obstacle_of([] { throw Error("what", "where"); }), Error("what", "where").what());
  });
}

// By hand from the layout: two slots of every rank's rows, 8 bytes a value as f32 with its time,
// 2 as bf16; in blocks of 2 MiB, which is what CUDA IPC shares.
TEST(DeviceCommBytes, AreTheMailboxAndTheWire) {
  const int64_t lines = 2 * 2 * 64 * 4096 * 8;
  const int64_t halves = 2 * 2 * 512 * 4096 * 2;
  const int64_t flags = 2 * 2 * 512 * 4;
  const int64_t times = 64 * 8 * 4 + 512 * 4;
  const int64_t mailbox = int64_t{13} << 21;  // 25 177 088 bytes
  EXPECT_EQ(mailbox / (2 << 20), (lines + halves + flags + times) / (2 << 20) + 1);
  EXPECT_EQ(device_comm_mailbox_bytes(2, 2048, 4096), mailbox);
  EXPECT_EQ(device_comm_wire_bytes(2048, 4096), 2048 * 4096 * 2);
  EXPECT_EQ(device_comm_bytes(2, 2048, 4096), mailbox + 2048 * 4096 * 2);
  EXPECT_EQ(device_comm_pinned_bytes(2, 2048, 4096), 4096 + 2 * (int64_t{4} << 20));
  // Few rows need no half of a mailbox for many, but the probe's scratch.
  EXPECT_EQ(device_comm_mailbox_bytes(4, 8, 96), 2 << 20);
  EXPECT_EQ(device_comm_wire_bytes(8, 96), 64 * 96 * 2);
  EXPECT_EQ(device_comm_pinned_bytes(4, 8, 96), 4096 + 4 * 4096);
  EXPECT_EQ(device_comm_bytes(1, 2048, 4096), 0);
  EXPECT_EQ(device_comm_pinned_bytes(1, 2048, 4096), 0);
  // A group too large for mailboxes.
  EXPECT_EQ(device_comm_bytes(9, 2048, 4096), 2048 * 4096 * 2);
}

TEST(DeviceCommBytes, PartsOfAMailboxDoNotOverlap) {
  for (const int size : {2, 3, 8}) {
    for (const int64_t rows : {1, 63, 64, 65, 511, 513, 4096}) {
      for (const int64_t dim : {4, 36, 4128, 16384}) {
        const cuda::PeerLayout at = cuda::peer_layout(size, rows, dim);
        EXPECT_EQ(at.small_rows, std::min<int64_t>(rows, 64));
        EXPECT_EQ(at.round_rows, rows <= 64 ? 0 : std::min<int64_t>(rows, 512));
        EXPECT_GE(at.halves, at.lines + 2 * size * at.small_rows * dim * 8);
        EXPECT_GE(at.flags, at.halves + 2 * size * at.round_rows * dim * 2);
        EXPECT_GE(at.small_times, at.flags + 2 * size * at.round_rows * 4);
        EXPECT_GE(at.round_times, at.small_times + at.small_rows * 8 * 4);
        EXPECT_GE(at.bytes, at.round_times + at.round_rows * 4);
        EXPECT_EQ((at.halves | at.flags | at.small_times | at.round_times | at.bytes) % 256, 0);
      }
    }
  }
}

}  // namespace
}  // namespace spillway

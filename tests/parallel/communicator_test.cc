// What communicators share, and those that need no MPI job: solo, abort and wait states, the mesh.
#include "parallel/communicator.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "kernels/core/error.h"
#include "parallel/abort_state.h"
#include "parallel/mesh.h"
#include "parallel/patience.h"
#include "parallel/planner.h"
#include "parallel/solo_communicator.h"
#include "tests/parallel/model_shapes.h"

namespace spillway {
namespace {

TEST(Solo, CollectivesAreTheIdentity) {
  const auto solo = make_solo_communicator();
  EXPECT_EQ(solo->rank(), 0);
  EXPECT_EQ(solo->size(), 1);
  EXPECT_STREQ(solo->kind(), "solo");
  std::vector<double> values = {1.5, -2};
  solo->all_reduce(values);
  EXPECT_EQ(values, (std::vector<double>{1.5, -2}));
  const std::vector<std::byte> mine = {std::byte{7}, std::byte{9}};
  std::vector<std::byte> all(2);
  solo->all_gather(mine, all);
  EXPECT_EQ(all, mine);
  solo->broadcast(all, 0);
  solo->barrier();
  EXPECT_EQ(all, mine);
  EXPECT_EQ(solo->waiting_for(), "");
}

TEST(Solo, SplitAndAbortReachTheChildren) {
  const auto solo = make_solo_communicator();
  EXPECT_EQ(solo->split(-1, 0), nullptr);
  const auto child = solo->split(3, 0);
  ASSERT_NE(child, nullptr);
  EXPECT_TRUE(child->healthy());
  std::thread([&] { solo->abort("rank 3 is gone"); }).join();
  EXPECT_FALSE(child->healthy());
  solo->abort("a later reason");
  try {
    child->barrier();
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.message(), "rank 3 is gone");
  }
  EXPECT_THROW(solo->split(0, 0), Error);
}

TEST(SoloDeathTest, HasNoPeers) {
  const auto solo = make_solo_communicator();
  EXPECT_DEATH(solo->send({}, 1), "group of one");
  EXPECT_DEATH(solo->recv({}, 0), "group of one");
  EXPECT_DEATH(solo->post({}, 1), "group of one");
  EXPECT_DEATH(solo->finish(0), "ticket");
}

TEST(Patience, EndsTheWaitOfWhoFailedAlone) {
  const auto solo = make_solo_communicator();
  {
    const Patience none(*solo, "");
    const Patience enough(*solo, "it failed", std::chrono::hours(1));
  }
  EXPECT_TRUE(solo->healthy());
  const Patience patience(*solo, "it failed", std::chrono::milliseconds(5));
  while (solo->healthy()) std::this_thread::yield();
  try {
    solo->barrier();
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.message(), "it failed");
  }
}

TEST(WaitState, ACallOfALibraryNamesItsRanks) {
  WaitState state;
  state.begin(CommOp::kBarrier, -1);
  state.call("ncclCommInitRank", {0, 2, 3});
  EXPECT_EQ(state.text(), "ncclCommInitRank with ranks 0, 2, 3");
  state.call("", {0, 2, 3});
  EXPECT_EQ(state.text(), "barrier 1");
}

TEST(WaitState, TextOfEveryKind) {
  WaitState state;
  EXPECT_EQ(state.text(), "");
  state.begin(CommOp::kAllReduce, -1);
  EXPECT_EQ(state.text(), "all-reduce 1");
  state.end();
  EXPECT_EQ(state.text(), "");
  state.begin(CommOp::kAllReduce, -1);
  EXPECT_EQ(state.text(), "all-reduce 2");
  state.begin(CommOp::kRecv, 0);
  EXPECT_EQ(state.text(), "recv 1 from rank 0");
  state.begin(CommOp::kSend, 65000);
  EXPECT_EQ(state.text(), "send 1 to rank 65000");
}

// Answers like an MPI world of n ranks as far as build_mesh asks.
class FakeWorld final : public Communicator {
 public:
  FakeWorld(int rank, int size, std::vector<int> colors, std::vector<int> keys)
      : rank_(rank), size_(size), colors_(std::move(colors)), keys_(std::move(keys)) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  const char* kind() const override { return "fake"; }
  void all_reduce(std::span<double>) override {}
  void all_gather(std::span<const std::byte>, std::span<std::byte>) override {}
  void broadcast(std::span<std::byte>, int) override {}
  void send(std::span<const std::byte>, int) override {}
  void recv(std::span<std::byte>, int) override {}
  int64_t post(std::span<const std::byte>, int) override { return 0; }
  void finish(int64_t) override {}
  bool progress() override { return false; }
  void barrier() override {}
  // The whole job's colours and keys are known, so the group can be worked out here.
  std::unique_ptr<Communicator> split(int color, int key) override {
    EXPECT_EQ(color, colors_[rank_]);
    EXPECT_EQ(key, keys_[rank_]);
    if (color < 0) return nullptr;
    int rank = 0;
    int size = 0;
    for (int r = 0; r < size_; ++r) {
      if (colors_[r] != color) continue;
      ++size;
      rank += keys_[r] < key ? 1 : 0;
    }
    return std::make_unique<FakeWorld>(rank, size, std::vector<int>{}, std::vector<int>{});
  }
  bool healthy() const override { return true; }
  void abort(const std::string&) override {}
  std::string waiting_for() const override { return ""; }
  void note_wait(int, bool) override {}
  void note_call(const std::string&) override {}

 private:
  int rank_;
  int size_;
  std::vector<int> colors_;
  std::vector<int> keys_;
};

TEST(Mesh, LinksBetweenStagesOfDifferentDegree) {
  PlanRequest request;
  request.split = parse_split("1:1+1:1:1+1");
  const ModelSpec model = testing::smollm2();
  const Plan plan = make_plan(model, assumed_cluster(6), request);
  const std::vector<int> colors = {0, 0, 1, 1, 1, 2, -1};
  const std::vector<int> keys = {0, 1, 0, 1, 2, 0, 0};
  const std::vector<int> from = {-1, -1, 0, 1, 0, 2, -1};
  const std::vector<std::vector<int>> to = {{2, 4}, {3}, {5}, {}, {}, {}, {}};
  for (int r = 0; r < 7; ++r) {
    const Mesh mesh = build_mesh(plan, std::make_unique<FakeWorld>(r, 7, colors, keys));
    EXPECT_EQ(mesh.rank, r);
    EXPECT_EQ(mesh.stage, colors[r]);
    EXPECT_EQ(mesh.front(), r == 0);
    EXPECT_EQ(mesh.receives_from, from[r]) << r;
    EXPECT_EQ(mesh.sends_to, to[r]) << r;
    ASSERT_NE(mesh.world, nullptr);
    EXPECT_EQ(mesh.tp == nullptr, r == 6);
    if (mesh.tp != nullptr) {
      EXPECT_EQ(mesh.tp->rank(), keys[r]);
    }
  }
}

TEST(Mesh, EveryReceiverHasItsSender) {
  const ModelSpec model = testing::smollm2();
  for (int n = 1; n <= 6; ++n) {
    for (const auto& split : all_splits(model, n, false)) {
      PlanRequest request;
      request.split = split;
      const Plan plan = make_plan(model, assumed_cluster(n), request);
      std::vector<int> colors;
      std::vector<int> keys;
      for (const RankPart& part : plan.parts) {
        colors.push_back(part.stage);
        keys.push_back(part.tp_index);
      }
      std::vector<Mesh> meshes;
      for (int r = 0; r < n; ++r) {
        meshes.push_back(build_mesh(plan, std::make_unique<FakeWorld>(r, n, colors, keys)));
      }
      int sends = 0;
      int receives = 0;
      for (int r = 0; r < n; ++r) {
        for (const int to : meshes[r].sends_to) EXPECT_EQ(meshes[to].receives_from, r);
        sends += static_cast<int>(meshes[r].sends_to.size());
        receives += meshes[r].receives_from >= 0 ? 1 : 0;
      }
      EXPECT_EQ(sends, receives) << split_text(split);
    }
  }
}

TEST(MeshDeathTest, MoreRanksInThePlanThanInTheJob) {
  const Plan plan = make_plan(testing::smollm2(), assumed_cluster(2), {});
  EXPECT_DEATH(build_mesh(plan, make_solo_communicator()), "size");
}

}  // namespace
}  // namespace spillway

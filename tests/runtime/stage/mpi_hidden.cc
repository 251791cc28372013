// --check-hidden between real ranks, run by ctest under mpirun with 2 and with 3 of them: rows with
// a bit that flips on one rank are named by the group's first rank.
#include <gtest/gtest.h>

#include <numeric>

#include "kernels/cpu/ops.h"
#include "parallel/mpi_communicator.h"
#include "runtime/stage/hidden_check.h"

namespace spillway {
namespace {

constexpr int64_t kLayers = 2;

// What the group's first rank says when on rank `odd` a bit flips at `point` of a step.
std::string said(Communicator& group, int odd, int64_t flipped_point) {
  StagePlan stage;
  stage.layers = {0, kLayers};
  stage.ranks.resize(static_cast<size_t>(group.size()));
  std::iota(stage.ranks.begin(), stage.ranks.end(), 0);
  ThreadPool pool(1);
  const cpu::Exec exec{&pool, cpu::best_isa()};
  std::vector<float> x(size_t{3} * 50, 1.5F);
  HiddenHashes hashes(HiddenCheck::kSums, kLayers, group.size());
  hashes.begin();
  for (int64_t point = 0; point <= hashes.last_point(); ++point) {
    if (group.rank() == odd && point == flipped_point) x[77] = 1.75F;
    EXPECT_TRUE(hashes.take(point));
    hashes.values()[static_cast<size_t>(point)] = cpu::hash_rows(exec, {x.data(), 3, 50});
  }
  try {
    compare_hidden(group, stage, 5, hashes);
  } catch (const Error& e) {
    EXPECT_EQ(group.rank(), 0);
    group.barrier();  // the others wait for the end of the job
    return e.what();
  }
  return "";
}

TEST(MpiHidden, EqualRowsPass) {
  const auto world = make_mpi_communicator();
  EXPECT_EQ(said(*world, -1, 0), "");
}

TEST(MpiHidden, TheFirstRankNamesAFlippedBit) {
  const auto world = make_mpi_communicator();
  const int last = world->size() - 1;
  const std::string text = said(*world, last, 3);
  if (world->rank() > 0) {
    EXPECT_EQ(text, "");
    return;
  }
  const std::string wanted = "step 5, after the attention of layer 1: rank " +
                             std::to_string(last) + " holds another residual stream than rank";
  EXPECT_EQ(text.rfind(wanted, 0), 0U) << text;
}

}  // namespace
}  // namespace spillway

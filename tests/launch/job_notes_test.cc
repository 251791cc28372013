// What is said of flags that cannot do what they are given for.
#include "launch/job_notes.h"

#include <gtest/gtest.h>

#include "tests/parallel/made_up_gpus.h"
#include "tests/parallel/refusal.h"

namespace spillway::testing {
namespace {

Plan plan_of(const ClusterSpec& cluster, DeviceChoice device, const std::string& split) {
  return make_plan(smollm2(), cluster, on(device, split));
}

std::string comm_refusal(const Plan& plan, CommChoice comm) {
  try {
    return "taken: " + comm_note(plan, comm);
  } catch (const Error& error) {
    return error.what();
  }
}

TEST(CommNote, AWayBetweenGpusNeedsSome) {
  const Plan cpus = plan_of(measured_cluster(2), DeviceChoice::kCpu, "1:1");
  EXPECT_EQ(comm_note(cpus, CommChoice::kAuto), "");
  EXPECT_EQ(comm_note(cpus, CommChoice::kStaged), "");  // which is how CPUs do it
  expect_says(comm_refusal(cpus, CommChoice::kNccl),
              {"--comm nccl", "on CPUs", "leave --comm out"});
  expect_says(comm_refusal(cpus, CommChoice::kPeer), {"--comm peer"});
}

TEST(CommNote, WithGpusThatSumNothingItIsSaid) {
  const ClusterSpec two = gpus({80, 80});
  const Plan group = plan_of(two, DeviceChoice::kGpu, "1:1");
  const Plan stages = plan_of(two, DeviceChoice::kGpu, "1+1");
  const Plan one = plan_of(gpus({80}), DeviceChoice::kGpu, "1");
  for (const CommChoice comm : {CommChoice::kNccl, CommChoice::kPeer, CommChoice::kStaged}) {
    EXPECT_EQ(comm_note(group, comm), "");
    expect_says(comm_note(one, comm), {"--comm ", "does nothing here"});
  }
  EXPECT_EQ(comm_note(stages, CommChoice::kStaged), "");  // hops go through the hosts then
  expect_says(comm_note(stages, CommChoice::kNccl), {"--comm nccl does nothing here"});
  EXPECT_EQ(comm_note(one, CommChoice::kAuto), "");
}

TEST(GpuMemoryNote, ABudgetOfNothing) {
  PlanRequest request;
  EXPECT_EQ(gpu_memory_note(measured_cluster(1), request), "");
  request.gpu_memory = parse_budgets("--gpu-memory", "3GiB");
  expect_says(gpu_memory_note(measured_cluster(1), request), {"--gpu-memory does nothing here"});
  EXPECT_EQ(gpu_memory_note(gpus({0, 24}), request), "");
}

TEST(ThreadsNote, MoreThanCores) {
  EXPECT_EQ(threads_note(2, 2, 1), "");
  EXPECT_EQ(threads_note(0, 2, 1), "");  // without -t
  EXPECT_EQ(threads_note(3, 2, 1),
            "-t 3 is more threads than the 2 cores that a rank has here, which is slower; leave -t "
            "out to take these");
  expect_says(threads_note(2, 1, 2), {"the 1 core that", "to take it", "mpirun --bind-to none"});
}

TEST(SpillFolderNote, AFolderInMemoryIsNoDisk) {
  PlanRequest request = on(DeviceChoice::kCpu);
  request.places = parse_places("layers all = disk");
  Plan plan = make_plan(smollm2(), measured_cluster(1), request);
  EXPECT_EQ(spill_folder_note(plan, 0, "/x", false), "");
  expect_says(spill_folder_note(plan, 0, "/x", true), {"/x", "memory (tmpfs)", "not on a disk"});
  const int64_t all = plan.rank_bytes(0);
  plan.budgets[0].host_bytes = all;
  EXPECT_NE(spill_folder_note(plan, 0, "/x", true), "");
  plan.budgets[0].host_bytes = all - 1;
  EXPECT_EQ(spill_folder_note(plan, 0, "/x", false), "");
  try {
    spill_folder_note(plan, 0, "/x", true);
    FAIL();
  } catch (const Error& error) {
    expect_says(error.what(), {"memory (tmpfs)", "more than the ", "rank 0, /x", "--spill-dir"});
  }
  // Nothing on the disk, or a rank that the plan has not.
  EXPECT_EQ(spill_folder_note(plan, 1, "/x", true), "");
  plan = make_plan(smollm2(), measured_cluster(1), on(DeviceChoice::kCpu));
  EXPECT_EQ(spill_folder_note(plan, 0, "/x", true), "");
}

}  // namespace
}  // namespace spillway::testing

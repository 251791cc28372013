// Which GPU a rank gets, and what is said when it gets none. The GPUs are made up: no CUDA here.
#include "launch/gpu_probe.h"

#include <gtest/gtest.h>

#include "kernels/core/error.h"

namespace spillway::testing {
namespace {

// n GPUs; counts what is asked of them.
struct FakeGpus {
  int n = 2;
  int seen = 0;
  std::vector<int> selected;
  std::string error;

  GpuSource source() {
    GpuSource out;
    out.visible = [this] {
      ++seen;
      if (!error.empty()) throw Error(error, "where", "what to do");
      std::vector<cuda::DeviceInfo> devices(static_cast<size_t>(n));
      for (int i = 0; i < n; ++i) devices[static_cast<size_t>(i)] = info(i);
      return devices;
    };
    out.select = [this](int ordinal) {
      selected.push_back(ordinal);
      cuda::DeviceInfo device = info(ordinal);
      device.free_bytes = 1000 + ordinal;
      return device;
    };
    out.read_gb_per_s = [] { return 3210.0; };
    return out;
  }
  static cuda::DeviceInfo info(int ordinal) {
    cuda::DeviceInfo device;
    device.ordinal = ordinal;
    device.name = "Made Up " + std::to_string(ordinal);
    device.uuid = "GPU-" + std::to_string(ordinal);
    device.major = 9;
    device.minor = 1;
    device.multiprocessors = 132;
    device.total_bytes = 4000;
    return device;
  }
};

std::string refusal(const GpuSource& source) {
  try {
    probe_gpu(DeviceChoice::kGpu, 0, source);
  } catch (const Error& error) {
    return error.what();
  }
  return "it was taken";
}

void expect_says(const std::string& text, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) {
    EXPECT_NE(text.find(part), std::string::npos) << "\"" << part << "\" in: " << text;
  }
}

TEST(GpuProbeTest, FillsEverythingOfTheSelectedGpu) {
  FakeGpus gpus;
  for (const DeviceChoice device : {DeviceChoice::kAuto, DeviceChoice::kGpu}) {
    const GpuProbe found = probe_gpu(device, 0, gpus.source());
    EXPECT_EQ(found.warning, "");
    EXPECT_EQ(found.gpu.name, "Made Up 0");
    EXPECT_EQ(found.gpu.uuid, "GPU-0");
    EXPECT_EQ(found.gpu.ordinal, 0);
    EXPECT_EQ(found.gpu.major, 9);
    EXPECT_EQ(found.gpu.minor, 1);
    EXPECT_EQ(found.gpu.multiprocessors, 132);
    EXPECT_EQ(found.gpu.total_bytes, 4000);
    EXPECT_EQ(found.gpu.free_bytes, 1000);
    EXPECT_EQ(found.gpu.read_gb_per_s, 0);  // measure_gpu()'s
    EXPECT_EQ(found.gpu.matrix_tflops, 0);
  }
  EXPECT_EQ(gpus.selected, (std::vector<int>{0, 0}));
}

TEST(GpuProbeTest, WhatCannotBeMeasuredIsAssumed) {
  FakeGpus gpus;
  GpuSpec gpu = probe_gpu(DeviceChoice::kAuto, 1, gpus.source()).gpu;
  EXPECT_EQ(measure_gpu(gpu, gpus.source()), "");
  EXPECT_EQ(gpu.read_gb_per_s, 3210);
  GpuSource broken = gpus.source();
  broken.read_gb_per_s = []() -> double { throw Error("out of memory", "where", "todo"); };
  gpu.read_gb_per_s = 0;
  expect_says(measure_gpu(gpu, broken), {"GPU 1 Made Up 1", "out of memory"});
  EXPECT_EQ(gpu.read_gb_per_s, 0);
  GpuSpec none;
  EXPECT_EQ(measure_gpu(none, broken), "");
}

TEST(GpuProbeTest, SeatsOfAHostTakeTurns) {
  FakeGpus gpus;
  for (int seat = 0; seat < 5; ++seat) {
    const GpuSpec gpu = probe_gpu(DeviceChoice::kAuto, seat, gpus.source()).gpu;
    EXPECT_EQ(gpu.ordinal, seat % 2);
    EXPECT_EQ(gpu.uuid, "GPU-" + std::to_string(seat % 2));
    EXPECT_EQ(gpu.free_bytes, 1000 + seat % 2);
  }
  EXPECT_EQ(gpus.selected, (std::vector<int>{0, 1, 0, 1, 0}));
}

TEST(GpuProbeTest, SeatsCountTheRanksOfAHostThatMayComputeOnAGpu) {
  // mpirun --map-by node: ranks alternate between two hosts.
  const std::vector<int> hosts = {0, 1, 0, 1, 0};
  PlanRequest request;
  const int all[] = {0, 0, 1, 1, 2};
  for (int rank = 0; rank < 5; ++rank) EXPECT_EQ(gpu_seat(hosts, request, rank), all[rank]) << rank;
  request.devices = {DeviceChoice::kCpu, DeviceChoice::kGpu, DeviceChoice::kGpu,
                     DeviceChoice::kAuto, DeviceChoice::kGpu};
  EXPECT_EQ(gpu_seat(hosts, request, 2), 0);  // rank 0 leaves its GPU to others
  EXPECT_EQ(gpu_seat(hosts, request, 4), 1);
  EXPECT_EQ(gpu_seat(hosts, request, 3), 1);
}

TEST(GpuProbeTest, PlanFindsTheGpusOfAHost) {
  FakeGpus gpus;
  ClusterSpec cluster = assumed_cluster(5);
  PlanRequest request;
  request.devices = {DeviceChoice::kGpu, DeviceChoice::kCpu, DeviceChoice::kGpu, DeviceChoice::kGpu,
                     DeviceChoice::kAuto};
  EXPECT_EQ(find_gpus(cluster, request, gpus.source(), true), "");
  const int expected[] = {0, -1, 1, 0, 1};
  for (const RankSpec& rank : cluster.ranks) {
    EXPECT_EQ(rank.gpu.ordinal, expected[rank.rank]);
    EXPECT_EQ(rank.gpu.present(), expected[rank.rank] >= 0);
    EXPECT_EQ(rank.gpu.read_gb_per_s, rank.gpu.present() ? 3210 : 0);
  }
  EXPECT_EQ(gpus.selected, (std::vector<int>{0, 1, 0}));  // each once, and the first again
  request.devices.pop_back();
  EXPECT_THROW(find_gpus(cluster, request, gpus.source(), true), Error);
  gpus.n = 0;
  cluster = assumed_cluster(2);
  EXPECT_EQ(find_gpus(cluster, {}, gpus.source(), true), "");
  EXPECT_FALSE(cluster.ranks[0].gpu.present());
  gpus.error = "the driver is too old";
  expect_says(find_gpus(cluster, {}, gpus.source(), false), {"the driver is too old"});
}

TEST(GpuProbeTest, WithDeviceCpuNothingIsAsked) {
  FakeGpus gpus;
  gpus.error = "the driver is too old";
  const GpuProbe found = probe_gpu(DeviceChoice::kCpu, 0, gpus.source());
  EXPECT_FALSE(found.gpu.present());
  EXPECT_EQ(found.warning, "");
  EXPECT_EQ(gpus.seen, 0);
}

TEST(GpuProbeTest, NoGpu) {
  FakeGpus gpus;
  gpus.n = 0;
  const GpuProbe found = probe_gpu(DeviceChoice::kAuto, 0, gpus.source());
  EXPECT_FALSE(found.gpu.present());
  EXPECT_EQ(found.warning, "");
  expect_says(refusal(gpus.source()), {"no GPU", "CUDA_VISIBLE_DEVICES", "--device cpu"});
}

TEST(GpuProbeTest, AnOldDriverIsAWarningOrAnError) {
  FakeGpus gpus;
  gpus.error = "the driver is too old";
  const GpuProbe found = probe_gpu(DeviceChoice::kAuto, 0, gpus.source());
  EXPECT_FALSE(found.gpu.present());
  expect_says(found.warning, {"the driver is too old", "where", "what to do", "on the CPU"});
  expect_says(refusal(gpus.source()), {"the driver is too old"});
}

TEST(GpuProbeTest, ABuildWithoutCudaSaysHowToGetOneWith) {
  EXPECT_EQ(probe_gpu(DeviceChoice::kAuto, 0, {}).warning, "");
  expect_says(refusal({}),
              {"built without CUDA", "nvcc", "cmake --preset release", "--device cpu"});
  // Where a driver is loaded somebody may wonder.
  GpuSource with_driver;
  with_driver.driver = true;
  expect_says(probe_gpu(DeviceChoice::kAuto, 0, with_driver).warning,
              {"built without CUDA", "cmake --preset release", "--device cpu"});
  EXPECT_EQ(probe_gpu(DeviceChoice::kCpu, 0, with_driver).warning, "");
  PlanRequest request;
  check_built_with_cuda(request, {});
  request.gpu_layers = 0;
  check_built_with_cuda(request, {});
  request.gpu_layers = 20;
  try {
    check_built_with_cuda(request, {});
    FAIL();
  } catch (const Error& error) {
    expect_says(error.what(), {"-ngl 20", "built without CUDA", "nvcc", "leave -ngl out"});
  }
}

TEST(GpuProbeTest, AnUnusedGpuIsExplained) {
  ModelSpec model;
  model.head_dim = 64;
  Plan plan;
  plan.parts.resize(1);
  plan.stages.resize(1);
  plan.stages[0].ranks = {0};
  ClusterSpec cluster;
  cluster.ranks.resize(1);
  EXPECT_TRUE(unused_gpus(plan, model, cluster, {}).empty());
  cluster.ranks[0].gpu.name = "Made Up";
  cluster.ranks[0].gpu.ordinal = 2;
  cluster.ranks[0].gpu.free_bytes = int64_t{3} << 30;
  ASSERT_EQ(unused_gpus(plan, model, cluster, {}).size(), 1U);
  expect_says(unused_gpus(plan, model, cluster, {})[0],
              {"GPU 2 Made Up is not used", "3.00 GiB", "the plan", "--device gpu"});
  plan.budgets.resize(1);
  plan.budgets[0].gpu_bytes = int64_t{1} << 30;
  expect_says(unused_gpus(plan, model, cluster, {})[0], {"3.00 GiB that are free there"});
  plan.budgets[0].gpu_given = true;
  expect_says(unused_gpus(plan, model, cluster, {})[0], {"1.00 GiB of --gpu-memory"});
  PlanRequest none;
  none.gpu_layers = 0;
  expect_says(unused_gpus(plan, model, cluster, none)[0], {"not used: -ngl 0"});
  model.head_dim = 72;
  expect_says(unused_gpus(plan, model, cluster, {})[0], {"heads have 72 values"});
  plan.parts[0].gpu = true;
  EXPECT_TRUE(unused_gpus(plan, model, cluster, {}).empty());
}

TEST(GpuProbeTest, OfSeveralRanksEachUnusedGpuIsExplained) {
  ModelSpec model;
  model.head_dim = 64;
  Plan plan;
  plan.parts.resize(5);
  plan.stages.resize(3);
  plan.stages[0].ranks = {0, 1};
  plan.stages[1].ranks = {2, 3};
  plan.stages[2].ranks = {4};
  ClusterSpec cluster = assumed_cluster(5);
  for (RankSpec& rank : cluster.ranks) {
    rank.gpu.name = "Made Up";
    rank.gpu.uuid = "GPU-1234567" + std::to_string(rank.rank) + "-9abc";
    rank.gpu.ordinal = rank.rank;
    rank.gpu.free_bytes = int64_t{3} << 30;
  }
  cluster.ranks[1].gpu = {};
  plan.parts[4].gpu = true;
  const std::vector<std::string> warnings = unused_gpus(plan, model, cluster, {});
  ASSERT_EQ(warnings.size(), 3U);
  expect_says(warnings[0], {"rank 0: GPU 0 Made Up (GPU-12345670) is not used",
                            "rank 1 of the same stage computes on its CPU"});
  expect_says(warnings[1], {"rank 2: GPU 2", "3.00 GiB", "its stage", "--device gpu"});
  expect_says(warnings[2], {"rank 3: GPU 3"});
  // Of a shared GPU a rank has its share.
  cluster.ranks[3].gpu = cluster.ranks[2].gpu;
  expect_says(unused_gpus(plan, model, cluster, {})[1], {"rank 2: GPU 2", "1.50 GiB"});
}

}  // namespace
}  // namespace spillway::testing

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
    probe_gpu(DeviceChoice::kGpu, 0, 1, source);
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
    const GpuProbe found = probe_gpu(device, 0, 1, gpus.source());
    EXPECT_EQ(found.warning, "");
    EXPECT_EQ(found.gpu.name, "Made Up 0");
    EXPECT_EQ(found.gpu.uuid, "GPU-0");
    EXPECT_EQ(found.gpu.ordinal, 0);
    EXPECT_EQ(found.gpu.major, 9);
    EXPECT_EQ(found.gpu.minor, 1);
    EXPECT_EQ(found.gpu.multiprocessors, 132);
    EXPECT_EQ(found.gpu.total_bytes, 4000);
    EXPECT_EQ(found.gpu.free_bytes, 1000);
    EXPECT_EQ(found.gpu.read_gb_per_s, 3210);
    EXPECT_EQ(found.gpu.matrix_tflops, 0);
  }
  EXPECT_EQ(gpus.selected, (std::vector<int>{0, 0}));
}

TEST(GpuProbeTest, RanksOfAHostTakeTurnsAndOpenNoGpuYet) {
  FakeGpus gpus;
  for (int rank = 0; rank < 5; ++rank) {
    const GpuSpec gpu = probe_gpu(DeviceChoice::kAuto, rank, 5, gpus.source()).gpu;
    EXPECT_EQ(gpu.ordinal, rank % 2);
    EXPECT_EQ(gpu.free_bytes, 0);
  }
  EXPECT_TRUE(gpus.selected.empty());
}

TEST(GpuProbeTest, WithDeviceCpuNothingIsAsked) {
  FakeGpus gpus;
  gpus.error = "the driver is too old";
  const GpuProbe found = probe_gpu(DeviceChoice::kCpu, 0, 1, gpus.source());
  EXPECT_FALSE(found.gpu.present());
  EXPECT_EQ(found.warning, "");
  EXPECT_EQ(gpus.seen, 0);
}

TEST(GpuProbeTest, NoGpu) {
  FakeGpus gpus;
  gpus.n = 0;
  const GpuProbe found = probe_gpu(DeviceChoice::kAuto, 0, 1, gpus.source());
  EXPECT_FALSE(found.gpu.present());
  EXPECT_EQ(found.warning, "");
  expect_says(refusal(gpus.source()), {"no GPU", "CUDA_VISIBLE_DEVICES", "--device cpu"});
}

TEST(GpuProbeTest, AnOldDriverIsAWarningOrAnError) {
  FakeGpus gpus;
  gpus.error = "the driver is too old";
  const GpuProbe found = probe_gpu(DeviceChoice::kAuto, 0, 1, gpus.source());
  EXPECT_FALSE(found.gpu.present());
  expect_says(found.warning, {"the driver is too old", "where", "what to do", "on the CPU"});
  expect_says(refusal(gpus.source()), {"the driver is too old"});
}

TEST(GpuProbeTest, ABuildWithoutCudaSaysHowToGetOneWith) {
  EXPECT_EQ(probe_gpu(DeviceChoice::kAuto, 0, 1, {}).warning, "");
  expect_says(refusal({}),
              {"built without CUDA", "nvcc", "cmake --preset release", "--device cpu"});
}

TEST(GpuProbeTest, AnUnusedGpuIsExplained) {
  ModelSpec model;
  model.head_dim = 64;
  Plan plan;
  plan.parts.resize(1);
  ClusterSpec cluster;
  cluster.ranks.resize(1);
  EXPECT_EQ(unused_gpu(plan, model, cluster), "");
  cluster.ranks[0].gpu.name = "Made Up";
  cluster.ranks[0].gpu.ordinal = 2;
  cluster.ranks[0].gpu.free_bytes = int64_t{3} << 30;
  expect_says(unused_gpu(plan, model, cluster), {"GPU 2 (Made Up)", "3.00 GiB", "--device gpu"});
  model.head_dim = 72;
  expect_says(unused_gpu(plan, model, cluster), {"heads have 72 values"});
  plan.parts[0].gpu = true;
  EXPECT_EQ(unused_gpu(plan, model, cluster), "");
}

}  // namespace
}  // namespace spillway::testing

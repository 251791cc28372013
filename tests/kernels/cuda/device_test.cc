// Devices, memory and streams: what every other CUDA test stands on.
#include <gtest/gtest.h>

#include <numeric>

#include "kernels/core/error.h"
#include "kernels/core/simulated_fault.h"
#include "kernels/cuda/host_side.h"
#include "tests/support/cuda_fixtures.h"

namespace spillway {
namespace {

TEST(Device, IsNamed) {
  const cuda::DeviceInfo& info = cuda_test::device();
  EXPECT_FALSE(info.name.empty());
  EXPECT_EQ(info.uuid.size(), 40u) << info.uuid;  // "GPU-" and 36 of a UUID
  EXPECT_GE(info.major, 8);
  EXPECT_GT(info.free_bytes, 0);
  EXPECT_EQ(cuda::visible_devices().front().uuid, info.uuid);
}

TEST(Device, ThatIsNotThereIsRefused) {
  EXPECT_THROW(cuda::select_device(99), Error);
  EXPECT_THROW(cuda::select_device(-1), Error);
}

TEST(DeviceMemory, TooMuchNamesBytesAndRemedy) {
  cuda_test::device();
  try {
    cuda::DeviceMemory memory("weights", int64_t{1} << 50);
    FAIL() << "a petabyte was given";
  } catch (const Error& e) {
    const std::string text = e.what();
    EXPECT_NE(text.find("weights wants 1073741824 MiB"), std::string::npos) << text;
    EXPECT_NE(text.find("--device cpu"), std::string::npos) << text;
  }
  EXPECT_NO_THROW(cuda::DeviceMemory("after", 1 << 20));  // the failure is not remembered
}

TEST(DeviceMemory, SimulatedRefusalsSayWhatRealOnesSay) {
  cuda_test::device();
  const auto refusal = [](const std::string& fault, const auto& body) -> std::string {
    simulate_fault(fault);
    try {
      body();
    } catch (const Error& e) {
      simulate_fault("");
      return e.what();
    }
    simulate_fault("");
    return "nothing was refused";
  };
  const std::string device = refusal("allocate gpu kv", [] { cuda::DeviceMemory("kv", 1 << 20); });
  EXPECT_NE(device.find("kv wants 1 MiB, the device has"), std::string::npos) << device;
  const std::string pinned =
      refusal("pin pinned staging", [] { cuda::PinnedMemory("pinned staging", 2 << 20); });
  EXPECT_NE(pinned.find("pinned staging wants 2 MiB"), std::string::npos) << pinned;
  EXPECT_NE(pinned.find("ulimit -l"), std::string::npos) << pinned;
  const cuda::PinnedMemory given("weights", 4096);
  const std::string range = refusal(
      "pin spilled weights", [&] { cuda::PinnedRange("spilled weights", given.data(), 4096); });
  EXPECT_NE(range.find("cannot pin host memory"), std::string::npos) << range;
  EXPECT_NE(range.find("ulimit -l"), std::string::npos) << range;
  EXPECT_EQ(refusal("allocate gpu kv", [] { cuda::DeviceMemory("weights", 1 << 20); }),
            "nothing was refused");
}

TEST(DeviceMemory, ValuesComeBack) {
  cuda_test::device();
  std::vector<int> values(10007);
  std::iota(values.begin(), values.end(), -5);
  EXPECT_EQ(cuda_test::OnDevice<int>(values).values(), values);
}

// As when a library refuses to be captured: the way that is tried next uses the same stream.
TEST(Graph, LaunchesThatThrowLeaveTheStreamUsable) {
  const cuda_test::Runner run;
  const cuda_test::OnDevice<float> x(std::vector<float>(64, 3.0F));
  const View2D<float> row(x.data(), 1, 64);
  const auto refused = [&] {
    cuda::scale_rows(run.exec, 2, row);
    throw Error("refused");
  };
  EXPECT_THROW(cuda::Graph::of(run.stream, refused), Error);
  const cuda::Graph graph =
      cuda::Graph::of(run.stream, [&] { cuda::scale_rows(run.exec, 2, row); });
  graph.launch(run.stream);
  cuda::scale_rows(run.exec, 2, row);
  run.wait();
  EXPECT_EQ(x.values(), std::vector<float>(64, 12.0F));
}

}  // namespace
}  // namespace spillway

// Host memory that the GPU reads, calls of the host in stream order and in graphs, waits asleep.
#include "kernels/cuda/host_side.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/core/host_pages.h"
#include "kernels/cuda/ops.h"
#include "tests/support/cuda_fixtures.h"

namespace spillway {
namespace {

TEST(PinnedRange, CopiesAndKernelsReadIt) {
  cuda_test::device();
  ThreadPool pool(2);
  constexpr int64_t kBytes = 3 << 20;  // no whole number of huge pages
  const HostPages pages("test", kBytes, pool);
  const cuda::PinnedRange pinned("test", pages.data(), kBytes);
  auto* values = reinterpret_cast<float*>(pages.data());
  constexpr int64_t kValues = 1000;
  for (int64_t i = 0; i < kValues; ++i) values[i] = static_cast<float>(i);
  const cuda::Stream stream;
  cuda::Exec exec;
  exec.stream = stream.handle();
  const cuda_test::OnDevice<float> x(std::vector<float>(kValues, 0.5f));
  cuda::add_rows(exec, View2D<const float>(values, 1, kValues),
                 View2D<float>(x.data(), 1, kValues));
  stream.synchronize();
  const std::vector<float> sums = x.values();
  for (int64_t i = 0; i < kValues; ++i) {
    ASSERT_EQ(sums[static_cast<size_t>(i)], static_cast<float>(i) + 0.5f);
  }
}

TEST(PinnedRange, RefusalNamesMemoryAndRemedy) {
  cuda_test::device();
  ThreadPool pool(1);
  const HostPages pages("test", 1 << 20, pool);
  const cuda::PinnedRange pinned("test", pages.data(), pages.bytes());
  try {
    const cuda::PinnedRange again("spilled weights", pages.data(), pages.bytes());
    FAIL() << "pinned twice";
  } catch (const Error& e) {
    const std::string text = e.what();
    EXPECT_NE(text.find("spilled weights, 1 MiB"), std::string::npos) << text;
    EXPECT_NE(text.find("ulimit -l"), std::string::npos) << text;
  }
  const cuda::Stream stream;
  EXPECT_NO_THROW(stream.synchronize());  // the failure is not remembered
}

struct Turn {
  const float* in;
  float* out;
  int calls = 0;
  static void take(void* context) {
    Turn& turn = *static_cast<Turn*>(context);
    ++turn.calls;
    *turn.out = *turn.in * 2;
  }
};

// x += 2 x on the host, again and again: every call must see what the kernel before it wrote, and
// the kernel after it what it wrote.
TEST(CallHost, InStreamOrderAndInGraphs) {
  cuda_test::device();
  const cuda::Stream stream;
  cuda::Exec exec;
  exec.stream = stream.handle();
  const cuda::PinnedMemory pinned("test", 4096);
  auto* in = reinterpret_cast<float*>(pinned.data());
  float* out = in + 256;
  Turn turn{in, out};
  const cuda_test::OnDevice<float> x(std::vector<float>{1.0f});
  const View2D<float> view(x.data(), 1, 1);
  const auto three_turns = [&] {
    for (int i = 0; i < 3; ++i) {
      cuda::add_rms_norm(exec, View2D<const float>(view), View2D<float>(in, 1, 1), false, nullptr,
                         0, 0, {});
      cuda::call_host(stream.handle(), Turn::take, &turn);
      cuda::add_rows(exec, View2D<const float>(out, 1, 1), view);
    }
  };
  three_turns();
  cuda::Graph::begin(stream);
  three_turns();
  const cuda::Graph graph = cuda::Graph::end(stream);
  graph.launch(stream);
  graph.launch(stream);
  cuda::SleepingWait wait;
  wait.wait_for(stream);
  EXPECT_EQ(turn.calls, 9);
  EXPECT_EQ(x.values(), std::vector<float>{19683.0f});  // 3^9
}

}  // namespace
}  // namespace spillway

// The tracer: kernels, copies and a graph's nodes with their times. Skipped where CUPTI is missing.
#include "kernels/cuda/trace.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>

#include "kernels/core/error.h"
#include "tests/support/cuda_fixtures.h"

namespace spillway {
namespace {

using cuda_test::OnDevice;
using cuda_test::Runner;

int64_t kernels_named(const DeviceTrace& trace, const std::string& part) {
  return std::count_if(trace.records.begin(), trace.records.end(), [&](const DeviceRecord& r) {
    return r.kind == DeviceRecord::Kind::kKernel &&
           trace.names[static_cast<size_t>(r.name)].find(part) != std::string::npos;
  });
}

// One test: a process has one tracer.
TEST(Trace, KernelsCopiesAndNodesOfAGraph) {
  const Runner run;
  OnDevice<float> x(std::vector<float>(4096, 1.0F));
  const View2D<float> rows(x.data(), 4, 1024);
  cuda::scale_rows(run.exec, 2, rows);
  run.wait();

  std::optional<cuda::Trace> trace;
  try {
    trace.emplace();
  } catch (const Error& e) {
    GTEST_SKIP() << e.what();
  }
  trace->start();
  const int64_t begin = trace->now_ns();
  std::vector<float> host(4096);
  cuda::scale_rows(run.exec, 0.5F, rows);
  cuda::copy_to_host(run.stream, host.data(), x.data(), 16384);
  run.wait();
  cuda::Graph::begin(run.stream);
  for (int i = 0; i < 3; ++i) cuda::scale_rows(run.exec, 0.5F, rows);
  const cuda::Graph graph = cuda::Graph::end(run.stream);
  for (int i = 0; i < 2; ++i) graph.launch(run.stream);
  run.wait();
  const int64_t end = trace->now_ns();
  const DeviceTrace found = trace->stop();

  EXPECT_EQ(kernels_named(found, "scale_kernel"), 1 + 2 * 3);
  EXPECT_EQ(found.dropped, 0);
  int64_t copies = 0;
  for (const DeviceRecord& record : found.records) {
    if (record.kind == DeviceRecord::Kind::kToHost && record.bytes == 16384) ++copies;
    EXPECT_LT(record.begin_ns, record.end_ns);
    EXPECT_GT(record.begin_ns, begin - 1000000);
    EXPECT_LT(record.end_ns, end + 1000000);
  }
  EXPECT_EQ(copies, 1);

  cuda::scale_rows(run.exec, 0.5F, rows);  // not traced
  run.wait();
  trace->start();
  cuda::scale_rows(run.exec, 0.5F, rows);
  run.wait();
  EXPECT_EQ(kernels_named(trace->stop(), "scale_kernel"), 1);
}

}  // namespace
}  // namespace spillway

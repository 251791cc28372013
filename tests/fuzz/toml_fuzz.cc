// Fuzz target: any bytes as a cluster file.
// Findings, beside what the sanitizers see: an exception that is no Error; a cluster that is taken,
// written and then read as another one; memory beyond a multiple of the text.
#include <cstddef>
#include <cstdint>
#include <string>

#include "kernels/core/error.h"
#include "parallel/cluster_file.h"
#include "tests/fuzz/oracle.h"

namespace spillway::fuzz {
namespace {

void read(const std::string& text) {
  try {
    const ClusterFile file = parse_cluster(text, "the input");
    const std::string once = cluster_text(file.cluster, file.origin);
    const ClusterFile again = parse_cluster(once, "what was written");
    expect(cluster_text(again.cluster, again.origin) == once, "writing changes the cluster");
    for (int n = 1; n <= file.cluster.size(); ++n) {
      keep(static_cast<uint64_t>(first_ranks(file.cluster, n, "the input").size()));
    }
  } catch (const Error& error) {
    expect_spoken(error);
    if (error.where().find("what was written") != std::string::npos) {
      finding("what was written is refused: " + std::string(error.what()));
    }
  }
}

}  // namespace
}  // namespace spillway::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace spillway::fuzz;
  AllocationMeter& meter = AllocationMeter::of_process();
  meter.reset();
  read({reinterpret_cast<const char*>(data), size});
  // A key of a few bytes is a value of some hundred.
  const auto most = static_cast<int64_t>((1 << 20) + 1000 * size);
  if (meter.peak() > most) finding(std::to_string(meter.peak()) + " bytes");
  return 0;
}

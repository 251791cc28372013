// See probe.h. Rates are the best of a few short runs: what the machine can do, not what it did
// while something else ran.
#include "parallel/probe.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <set>
#include <vector>

#include "kernels/core/int_math.h"
#include "kernels/core/packed_matrix.h"
#include "kernels/core/seconds.h"
#include "parallel/cgroup.h"
#include "parallel/host_reads.h"
#include "parallel/numa.h"

namespace spillway {
namespace {

using Clock = std::chrono::steady_clock;

// Of the buffer, beside the last cache's bytes: what lies in there is not read from memory.
constexpr int64_t kCacheTimes = 3;
constexpr int64_t kLeastReadBytes = int64_t{64} << 20;
constexpr int64_t kUnknownCacheBytes = int64_t{64} << 20;
constexpr double kReadSeconds = 0.05;
constexpr double kMatrixSeconds = 0.04;
constexpr int kMostRuns = 50;
constexpr int kMostCpus = 4096;

constexpr int64_t kMatrixRows = 1024;
constexpr int64_t kMatrixCols = 1024;
constexpr int64_t kMatrixBatch = 32;

constexpr int kSmallTurns = 5;
constexpr int kSmallSums = 10;                   // a turn
constexpr int64_t kLargeSumDoubles = 32 * 1024;  // 256 KiB
constexpr int kLargeTurns = 5;

// Best time of a few runs of body, which end when the budget is spent.
template <typename Body>
double best_seconds(double budget, const Body& body) {
  const auto begin = Clock::now();
  double best = HUGE_VAL;
  for (int run = 0; run < kMostRuns && (run < 2 || seconds_since(begin) < budget); ++run) {
    const auto start = Clock::now();
    body();
    best = std::min(best, seconds_since(start));
  }
  return best;
}

// The last caches of all cores together, one for each list of cores that share it.
int64_t last_cache_bytes() {
  std::set<std::string> seen;
  int64_t bytes = 0;
  for (int cpu = 0; cpu < kMostCpus; ++cpu) {
    const std::string folder =
        "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/cache/index3/";
    const std::string kib = small_file_text(folder + "size");  // "32768K"
    if (kib.empty()) break;
    if (!seen.insert(small_file_text(folder + "shared_cpu_list")).second) continue;
    bytes += std::max<int64_t>(0, std::atoll(kib.c_str())) << 10;
  }
  return bytes > 0 ? bytes : kUnknownCacheBytes;
}

std::vector<BlockQ8_0> noise_blocks(int64_t n) {
  std::vector<BlockQ8_0> blocks(static_cast<size_t>(n));
  uint32_t state = 1;
  for (BlockQ8_0& block : blocks) {
    block.d = 0x2C00;  // 1/16 as half float
    for (int8_t& code : block.qs) {
      state = state * 1664525u + 1013904223u;  // Numerical Recipes' generator
      code = static_cast<int8_t>(state >> 24);
    }
  }
  return blocks;
}

double measure_matrix(const cpu::Exec& exec) {
  const std::vector<BlockQ8_0> blocks = noise_blocks(kMatrixRows * kMatrixCols / 32);
  const cpu::GgufMatrix source = {QuantType::kQ8_0, kMatrixRows, kMatrixCols,
                                  reinterpret_cast<const std::byte*>(blocks.data())};
  PackedMatrix matrix = {QuantType::kQ8_0, kMatrixRows, kMatrixCols, nullptr};
  const int64_t bytes = packed_bytes(matrix.type, matrix.rows, matrix.cols);
  std::vector<std::byte> memory(static_cast<size_t>(bytes + kPackedAlignment));
  void* aligned = memory.data();
  size_t space = memory.size();
  CHECK(std::align(kPackedAlignment, static_cast<size_t>(bytes), aligned, space) != nullptr);
  matrix.data = static_cast<std::byte*>(aligned);
  cpu::pack(exec, source, {0, kMatrixRows}, {0, kMatrixCols}, matrix, 0);

  constexpr int64_t kBlocks = kMatrixCols / cpu::kActivationBlock;
  std::vector<float> x(kMatrixBatch * kMatrixCols);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 251) - 125.0f;
  std::vector<int8_t> q8(x.size());
  std::vector<float> scale(kMatrixBatch * kBlocks);
  std::vector<int32_t> sum(kMatrixBatch * 2 * kBlocks);
  std::vector<float> out(kMatrixBatch * kMatrixRows);
  cpu::Activations input;
  input.x = View2D<const float>(x.data(), kMatrixBatch, kMatrixCols);
  input.q8 = View2D<int8_t>(q8.data(), kMatrixBatch, kMatrixCols);
  input.scale = View2D<float>(scale.data(), kMatrixBatch, kBlocks);
  input.sum = View2D<int32_t>(sum.data(), kMatrixBatch, 2 * kBlocks);
  cpu::quantize_rows(exec, input);
  const View2D<float> result(out.data(), kMatrixBatch, kMatrixRows);
  const double seconds = best_seconds(
      kMatrixSeconds, [&] { cpu::matmul(exec, std::span(&matrix, 1), input, result); });
  return static_cast<double>(kMatrixRows * kMatrixCols * kMatrixBatch) / seconds * 1e-9;
}

std::string cpu_model_name() {
  const std::string text = small_file_text("/proc/cpuinfo");
  const size_t key = text.find("model name");
  const size_t colon = key == std::string::npos ? key : text.find(": ", key);
  if (colon == std::string::npos) return "unknown CPU";
  return text.substr(colon + 2, text.find('\n', colon) - colon - 2);
}

std::string host_name() {
  char name[256] = "";
  if (gethostname(name, sizeof(name) - 1) != 0 || name[0] == '\0') return "unknown-host";
  return name;
}

CgroupLimits own_limits() {
  return cgroup_limits("/sys/fs/cgroup", small_file_text("/proc/self/cgroup"));
}

int affinity_cores() {
  // Machines with more than 1024 CPUs need a larger set than cpu_set_t.
  for (int n = 1024; n <= 1 << 17; n *= 4) {
    const size_t bytes = CPU_ALLOC_SIZE(n);
    std::vector<unsigned long> storage(bytes / sizeof(unsigned long) + 1);
    auto* set = reinterpret_cast<cpu_set_t*>(storage.data());
    if (sched_getaffinity(0, bytes, set) == 0) return std::max(1, CPU_COUNT_S(bytes, set));
  }
  return 1;
}

}  // namespace

int usable_cores() {
  const double quota = own_limits().cores;
  const int cores = affinity_cores();
  return quota < cores ? std::max(1, static_cast<int>(quota)) : cores;
}

int cores_of_rank(int local_size, int mask_cores, int machine_cores, double quota_cores) {
  // Masks that together fit the machine are the ranks' own; a quota is always shared.
  const bool own = mask_cores < machine_cores && mask_cores * local_size <= machine_cores;
  const double mine = own ? mask_cores : static_cast<double>(mask_cores) / local_size;
  return std::max(1, static_cast<int>(std::min(mine, quota_cores / local_size)));
}

int cores_of_rank(int local_size) {
  return cores_of_rank(local_size, affinity_cores(),
                       static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN)), own_limits().cores);
}

int cores_of_numa_rank(int node_cores, int node_ranks, int local_size, double quota_cores) {
  const double mine = static_cast<double>(node_cores) / node_ranks;
  return std::max(1, static_cast<int>(std::min(mine, quota_cores / local_size)));
}

int cores_of_numa_rank(int node_cores, int node_ranks, int local_size) {
  return cores_of_numa_rank(node_cores, node_ranks, local_size, own_limits().cores);
}

int64_t usable_memory_bytes() {
  const int64_t available = meminfo_bytes(small_file_text("/proc/meminfo"), "MemAvailable");
  return std::min(available, own_limits().memory_left_bytes);
}

int64_t past_caches_bytes(int64_t free_bytes) {
  const int64_t bytes = std::max(kLeastReadBytes, kCacheTimes * last_cache_bytes());
  return std::min(bytes, read_buffer_bytes(free_bytes));
}

RankSpec probe_rank(const cpu::Exec& exec, const ProbeOptions& options) {
  CHECK(exec.pool != nullptr);
  CHECK_GE(options.local_size, 1);
  RankSpec spec;
  spec.rank = options.rank;
  spec.host = host_name();
  spec.local_rank = options.local_rank;
  spec.local_size = options.local_size;
  spec.pid = getpid();
  spec.cpu = cpu_model_name();
  spec.isa = cpu::isa_name(exec.isa);
  spec.threads = exec.pool->size();
  spec.memory_free_bytes = usable_memory_bytes() / options.local_size;
  spec.numa_nodes = std::max(1, static_cast<int>(read_numa_nodes().size()));
  if (options.measure) measure_rates(exec, spec);
  return spec;
}

void measure_rates(const cpu::Exec& exec, RankSpec& spec, const std::function<void()>& together) {
  ReadBuffer buffer(exec, past_caches_bytes(spec.memory_free_bytes));
  measure_rates(exec, buffer, spec, together);
}

void measure_rates(const cpu::Exec& exec, ReadBuffer& buffer, RankSpec& spec,
                   const std::function<void()>& together) {
  spec.read_gb_per_s = best_read_gb_per_s(buffer, exec.pool->size(), kReadSeconds);
  spec.matrix_gop_per_s = measure_matrix(exec);
  spec.measured = true;
  if (!together) return;
  together();
  if (spec.local_size < 2) return;
  const int threads = exec.pool->size() * spec.local_size;
  spec.together = measure_together(buffer, threads, kReadSeconds, {});
}

LinkSpec probe_link(Communicator& world) {
  LinkSpec link;
  link.measured = true;
  if (world.size() == 1) return link;
  // The best of a few turns: others may take the cores from single ones.
  const auto best_mean = [&world](int64_t n, int turns, int sums) {
    std::vector<double> vector(static_cast<size_t>(n));
    double best = HUGE_VAL;
    for (int turn = 0; turn <= turns; ++turn) {  // one more to wake connections
      // Ones again: sums of sums grow by the number of ranks each time.
      std::fill(vector.begin(), vector.end(), 1.0);
      const auto start = Clock::now();
      for (int i = 0; i < sums; ++i) world.all_reduce(vector);
      if (turn > 0) best = std::min(best, seconds_since(start) / sums);
    }
    return best;
  };
  double seconds[3] = {best_mean(1, kSmallTurns, kSmallSums),
                       best_mean(kRowSumBytes / 8, kSmallTurns, kSmallSums),
                       best_mean(kLargeSumDoubles, kLargeTurns, 1)};
  // The ranks' mean, so that all of them report the same link.
  world.all_reduce(seconds);
  const double latency = seconds[0] / world.size();
  const double row = std::max(latency, seconds[1] / world.size());
  const double large = seconds[2] / world.size();
  constexpr double kBeyondRow = 8.0 * kLargeSumDoubles - kRowSumBytes;
  // Where others took the cores from the small sums, at most so much is theirs.
  const double moving = std::max(large - row, large / 4);
  link.latency_us = latency * 1e6;
  link.row_sum_us = row * 1e6;
  link.gb_per_s = kBeyondRow / moving * 1e-9;
  return link;
}

}  // namespace spillway

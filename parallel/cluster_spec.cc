// The assumed cluster: what `plan` and the cost model use where nothing was measured. Ranks that
// are alike, and ranks that share a GPU.
#include "parallel/cluster_spec.h"

#include <algorithm>

#include "kernels/core/check.h"

namespace spillway {
namespace {

// One core of a rented x86 server, all measured 2026-11-22: one thread of an H100 machine's host
// reads 8 GB/s of memory (8 threads 57, 16 threads 93).
constexpr double kReadGbPerS = 8.0;
// int8 multiply-adds of one AVX2 core: a quarter of what kernels/cpu reaches on one Zen 5 core with
// 512-bit vectors (Q8_0, 32 columns: 400).
constexpr double kMatrixGopPerS = 100.0;
// A rank's memory: the smallest machine that is commonly rented has 8 GiB a core.
constexpr int64_t kMemoryFreeBytes = int64_t{8} << 30;
// Open MPI in shared memory: 2 ranks take 0.6 us for 4 bytes and 14 us for 32 KB when each has a
// core of its own; waits that yield and a third rank make it some microseconds.
constexpr double kLinkLatencyUs = 5.0;
constexpr double kLinkGbPerS = 2.0;

bool same_gpu(const RankSpec& a, const RankSpec& b) {
  if (!a.gpu.present() || !b.gpu.present() || a.host != b.host) return false;
  return a.gpu.uuid == b.gpu.uuid && (!a.gpu.uuid.empty() || a.gpu.ordinal == b.gpu.ordinal);
}

}  // namespace

std::string GpuSpec::text() const {
  constexpr size_t kUuidStart = 12;  // "GPU-" and eight digits, as nvidia-smi -L begins
  std::string out = "GPU " + std::to_string(ordinal) + " " + name;
  if (!uuid.empty()) out += " (" + uuid.substr(0, kUuidStart) + ")";
  return out;
}

ClusterSpec assumed_cluster(int n_ranks) {
  CHECK_GE(n_ranks, 1);
  ClusterSpec cluster;
  for (int i = 0; i < n_ranks; ++i) {
    RankSpec rank;
    rank.rank = i;
    rank.host = "assumed";
    rank.local_rank = i;
    rank.local_size = n_ranks;
    rank.cpu = "assumed x86-64 core";
    rank.isa = "assumed";
    rank.memory_free_bytes = kMemoryFreeBytes;
    rank.read_gb_per_s = kReadGbPerS;
    rank.matrix_gop_per_s = kMatrixGopPerS;
    cluster.ranks.push_back(rank);
  }
  cluster.link = {kLinkLatencyUs, kLinkGbPerS, false};
  return cluster;
}

ClusterSpec like_ranks_equal(const ClusterSpec& cluster) {
  const auto like = [](const RankSpec& a, const RankSpec& b) {
    return a.host == b.host && a.cpu == b.cpu && a.isa == b.isa && a.threads == b.threads &&
           a.measured == b.measured && a.gpu.name == b.gpu.name;
  };
  const auto median = [](std::vector<double>& values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
  };
  ClusterSpec out = cluster;
  for (RankSpec& rank : out.ranks) {
    std::vector<double> reads;
    std::vector<double> products;
    std::vector<double> gpu_reads;
    std::vector<double> gpu_products;
    for (const RankSpec& other : cluster.ranks) {
      if (!like(rank, other)) continue;
      reads.push_back(other.read_gb_per_s);
      products.push_back(other.matrix_gop_per_s);
      gpu_reads.push_back(other.gpu.read_gb_per_s);
      gpu_products.push_back(other.gpu.matrix_tflops);
    }
    rank.read_gb_per_s = median(reads);
    rank.matrix_gop_per_s = median(products);
    rank.gpu.read_gb_per_s = median(gpu_reads);
    rank.gpu.matrix_tflops = median(gpu_products);
  }
  return out;
}

std::vector<int> ranks_on_gpu(const ClusterSpec& cluster, int rank) {
  std::vector<int> ranks;
  for (const RankSpec& other : cluster.ranks) {
    if (same_gpu(cluster.ranks[static_cast<size_t>(rank)], other)) ranks.push_back(other.rank);
  }
  return ranks;
}

ClusterSpec with_shared_gpus(const ClusterSpec& cluster) {
  ClusterSpec out = cluster;
  for (RankSpec& rank : out.ranks) {
    const std::vector<int> ranks = ranks_on_gpu(cluster, rank.rank);
    if (ranks.size() < 2) continue;
    for (const int other : ranks) {
      const GpuSpec& seen = cluster.ranks[static_cast<size_t>(other)].gpu;
      rank.gpu.free_bytes = std::min(rank.gpu.free_bytes, seen.free_bytes);
    }
    rank.gpu.free_bytes /= static_cast<int64_t>(ranks.size());
    rank.gpu.read_gb_per_s /= static_cast<double>(ranks.size());
    rank.gpu.matrix_tflops /= static_cast<double>(ranks.size());
  }
  return out;
}

}  // namespace spillway

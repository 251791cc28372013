// Clusters of GPUs that nobody has, for the tests of plans.
#pragma once

#include <string>
#include <vector>

#include "parallel/planner.h"
#include "tests/parallel/model_shapes.h"

namespace spillway::testing {

inline constexpr int64_t kGiB = int64_t{1} << 30;

// Ranks of one host with a GPU each of so many GiB; 0: a rank without one.
inline ClusterSpec gpus(const std::vector<int64_t>& gib, double read_gb_per_s = 3000) {
  ClusterSpec cluster = measured_cluster(static_cast<int>(gib.size()));
  for (RankSpec& rank : cluster.ranks) {
    const int64_t size = gib[static_cast<size_t>(rank.rank)];
    rank.host = "one";
    rank.local_rank = rank.rank;
    rank.local_size = cluster.size();
    rank.memory_free_bytes = 256 * kGiB;
    if (size == 0) continue;
    rank.gpu.name = "Made Up " + std::to_string(size);
    rank.gpu.uuid = "GPU-0000000" + std::to_string(rank.rank) + "-aaaa";
    rank.gpu.ordinal = rank.rank;
    rank.gpu.total_bytes = size * kGiB;
    rank.gpu.free_bytes = size * kGiB;
    rank.gpu.read_gb_per_s = read_gb_per_s;
  }
  return cluster;
}

// With the rates of an H100's host: threads that read 84 GB/s beside a bus of 52.
inline ClusterSpec with_host_rates(ClusterSpec cluster, double cpu = 84, double bus = 52) {
  for (RankSpec& rank : cluster.ranks) {
    rank.read_gb_per_s = cpu;
    rank.matrix_gop_per_s = 3000;
    rank.gpu.h2d_gb_per_s = bus;
    rank.host_reads = {{16, cpu, cpu, bus}};
    rank.disk_gb_per_s = 2;
  }
  return cluster;
}

inline PlanRequest on(DeviceChoice device, const std::string& split = "") {
  PlanRequest request;
  request.device = device;
  request.context = 512;
  if (!split.empty()) request.split = parse_split(split);
  return request;
}

}  // namespace spillway::testing

// Made-up machines with GPUs for the tests of parallel/.
#pragma once

#include <string>
#include <vector>

#include "tests/parallel/made_up_gpus.h"
#include "tests/parallel/model_shapes.h"

namespace spillway::testing {

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

}  // namespace spillway::testing

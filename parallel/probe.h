// Probe: what this rank has: CPU, instruction set, cores, free memory (host or cgroup, divided by
// the ranks that share it), measured read bandwidth and product rate. Under 200 ms in all.
// The link probe is collective over the job.
#pragma once

#include "kernels/cpu/ops.h"
#include "parallel/cluster_spec.h"
#include "parallel/communicator.h"

namespace spillway {

struct ProbeOptions {
  int rank = 0;
  int local_rank = 0;
  int local_size = 1;
  bool measure = true;  // false: only facts, no rates
};

RankSpec probe_rank(const cpu::Exec& exec, const ProbeOptions& options);
LinkSpec probe_link(Communicator& world);

// Cores that this process may use (affinity mask and cgroup quota), and bytes it may still take.
int usable_cores();
int64_t usable_memory_bytes();

}  // namespace spillway

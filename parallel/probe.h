// Probe: what this rank has: CPU, instruction set, cores, free memory (host or cgroup, divided by
// the ranks that share it), measured read bandwidth and product rate. Some 0.2 s in all.
// The link probe is collective over the job.
#pragma once

#include <functional>

#include "kernels/cpu/ops.h"
#include "parallel/cluster_spec.h"
#include "parallel/communicator.h"
#include "parallel/host_reads.h"

namespace spillway {

struct ProbeOptions {
  int rank = 0;
  int local_rank = 0;
  int local_size = 1;
  bool measure = true;  // false: only facts, no rates
};

RankSpec probe_rank(const cpu::Exec& exec, const ProbeOptions& options);
// The two rates that every plan needs, quickly; probe_rank() does it when options.measure. The
// buffer is as large as a sixteenth of spec.memory_free_bytes allows, to lie beyond the caches.
// together, of a rank that shares its host (spec.local_size): called once, returns when all of the
// host's ranks have called it; then they read at the same time. May be empty.
void measure_rates(const cpu::Exec& exec, RankSpec& spec,
                   const std::function<void()>& together = {});
// The same with a buffer of past_caches_bytes() that is there already.
void measure_rates(const cpu::Exec& exec, ReadBuffer& buffer, RankSpec& spec,
                   const std::function<void()>& together);
// Of weights or reads that no cache of the host holds, as far as free memory allows.
int64_t past_caches_bytes(int64_t free_bytes);
LinkSpec probe_link(Communicator& world);

// Cores that this process may use (affinity mask and cgroup quota), and bytes it may still take.
int usable_cores();
// This rank's cores when local_size ranks run on its host: all it may use when mpirun has bound
// each rank to cores of its own, else its share of them. At least 1.
int cores_of_rank(int local_size);
// The same from the numbers: cores in the affinity mask, cores of the machine, the cgroup's quota.
int cores_of_rank(int local_size, int mask_cores, int machine_cores, double quota_cores);
// Of a rank that keeps to a NUMA node, whose cores it shares with node_ranks - 1 others; a quota is
// shared by all local_size ranks.
int cores_of_numa_rank(int node_cores, int node_ranks, int local_size);
int cores_of_numa_rank(int node_cores, int node_ranks, int local_size, double quota_cores);
int64_t usable_memory_bytes();

}  // namespace spillway

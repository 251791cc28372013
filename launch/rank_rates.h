// The rates of a job's ranks: kept ones when there are (kept_rates.h), else measured, quickly at a
// job's start or thoroughly by `spillway probe`.
#pragma once

#include <span>
#include <string>

#include "kernels/cpu/ops.h"
#include "launch/bring_up.h"
#include "launch/gpu_probe.h"
#include "parallel/cluster_spec.h"

namespace spillway {

struct JobRates {
  RankSpec mine;  // facts and rates
  LinkSpec link;
  std::vector<PairSpec> pairs;
  bool kept = false;    // by an earlier probe
  std::string note;     // where they come from, for the front to print
  std::string warning;  // of this rank, or ""
};

// Collective. facts: of this rank, its GPU selected. Kept rates count when they are those of all
// ranks; otherwise every rank measures what a plan cannot do without, at the same time: 0.2 s, and
// 0.1 to 0.3 s more for ranks without a GPU.
// types: of the weights that the job multiplies with.
JobRates settle_rates(World& world, const cpu::Exec& exec, const GpuSource& gpus,
                      const RankSpec& facts, std::span<const QuantType> types);

// Collective: everything that a ClusterSpec has, in steps that all ranks begin together. Seconds.
// model: a file to read for the disk's rate, or "". Throws SharedError.
ClusterSpec measure_cluster(World& world, const cpu::Exec& exec, const GpuSource& gpus,
                            const RankSpec& facts, const std::string& model);

// Collective: every rank's facts, with the rates that it holds, on all ranks.
ClusterSpec gather_cluster(World& world, const RankSpec& mine);
// Collective: the disk's rates, by one rank of each host.
void measure_disks(World& world, const std::string& model, RankSpec& mine);

}  // namespace spillway

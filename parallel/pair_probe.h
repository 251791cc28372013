// Links between the GPUs of a job's ranks, pair by pair: what a tensor-parallel group of the two
// would sum through, how fast, and how soon. Uses what a group itself uses
// (device_communicator.h), so it says what a job will get, proofs of the data included.
#pragma once

#include <string>
#include <vector>

#include "parallel/cluster_spec.h"
#include "parallel/communicator.h"

namespace spillway {

// Collective over `world`; every rank gets the same list. gpu: of this rank, selected by the
// calling thread when present; ranks without one, and two on one GPU, make no pair. Some seconds at
// most: of many pairs the later ones are taken to be as their likes (same host or not, same GPUs).
std::vector<PairSpec> probe_pairs(Communicator& world, const GpuSpec& gpu, const std::string& host);

}  // namespace spillway

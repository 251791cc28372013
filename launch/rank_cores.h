// The cores of a rank: how many threads its pool gets, and on a host of several NUMA nodes which
// node it keeps to.
#pragma once

#include "launch/bring_up.h"

namespace spillway {

// Collective, before the rank starts threads that touch weights. gpu_node: the NUMA node of its
// GPU, -1 when it has none or that is unknown. Where the ranks of a host cover its nodes, and
// mpirun has bound none of them, each keeps to its GPU's node. Returns the threads of its pool.
int settle_cores(World& world, int gpu_node);

}  // namespace spillway

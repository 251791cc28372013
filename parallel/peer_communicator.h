// PeerCommunicator: sums by kernels that push into each other's mailboxes over CUDA IPC
// (kernels/cuda/peer.h). For ranks of one host with a GPU each that reach each other; what is in
// the way is an Error on all ranks.
#pragma once

#include <memory>

#include "parallel/comm_memory.h"
#include "parallel/communicator.h"
#include "parallel/device_communicator.h"
#include "parallel/rank_place.h"

namespace spillway {

// Collective. `pushes` gets the speed of every pair. memory and what it lends outlive the result.
std::unique_ptr<DeviceCommunicator> make_peer_communicator(Communicator& group,
                                                           const std::vector<RankPlace>& places,
                                                           const cuda::Exec& exec,
                                                           const cuda::Stream& stream,
                                                           const DeviceCommOptions& options,
                                                           CommMemory& memory, CommReport& report);

}  // namespace spillway

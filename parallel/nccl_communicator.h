// NcclCommunicator: sums by NCCL, whose library is opened when it is asked for: a program that
// never sums between GPUs needs none. f32 on the wire for few rows, bf16 for many; then
// add_rms_norm. What is in the way (no library, ranks that share a GPU) is an Error on all ranks.
#pragma once

#include <memory>

#include "parallel/comm_memory.h"
#include "parallel/communicator.h"
#include "parallel/device_communicator.h"
#include "parallel/rank_place.h"

namespace spillway {

// Collective. memory and what it lends outlive the result.
std::unique_ptr<DeviceCommunicator> make_nccl_communicator(Communicator& group,
                                                           const std::vector<RankPlace>& places,
                                                           const cuda::Stream& stream,
                                                           CommMemory& memory,
                                                           const CommReport& report);

}  // namespace spillway

// StagedCommunicator: sums through host memory: device → pinned → the group's all_gather → added on
// the host in rank order → device. Works for any set of ranks, several on one GPU included; waits
// on the host (DeviceCommOptions::wait_for), so its sums cannot be captured. f32 on the wire,
// whatever the number of rows.
#pragma once

#include <memory>

#include "parallel/comm_memory.h"
#include "parallel/communicator.h"
#include "parallel/device_communicator.h"

namespace spillway {

std::unique_ptr<DeviceCommunicator> make_staged_communicator(Communicator& group,
                                                             const DeviceCommOptions& options,
                                                             CommMemory& memory,
                                                             const CommReport& report);

}  // namespace spillway

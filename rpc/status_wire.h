// RankProgress and JobStatus to and from protobuf. Called by coordinator.cc, worker_agent.cc and
// job_status.cc. Decides nothing.
//   Thread: pure functions.
#pragma once

#include "rpc/job_status.h"

namespace spillway {

namespace rpc {  // generated from proto/coordinator.proto; complete in .cc files only
class Progress;
class StatusReply;
}  // namespace rpc

void to_wire(const RankProgress& progress, rpc::Progress* wire);
RankProgress from_wire(const rpc::Progress& wire);
void to_wire(const JobStatus& status, rpc::StatusReply* wire);
JobStatus from_wire(const rpc::StatusReply& wire);

}  // namespace spillway

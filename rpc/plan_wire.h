// Plan and ClusterSpec to and from protobuf. Called by coordinator.cc and worker_agent.cc; `plan
// --json` and saved plans may use the byte strings too. Decides nothing and checks only what would
// break a reader: indices, enums and counts; check_plan (parallel/plan.h) checks the plan itself.
//   Thread: pure functions.
#pragma once

#include <string>

#include "parallel/cluster_spec.h"
#include "parallel/plan.h"

namespace spillway {

namespace rpc {  // generated from proto/coordinator.proto; complete in .cc files only
class Cluster;
class Inventory;
class Plan;
}  // namespace rpc

// Every field, bit for bit; the same plan gives the same bytes on the same build.
std::string encode_plan(const Plan& plan);
// Throws Error: not a plan message, or a plan whose ranks, stages or types cannot be.
Plan decode_plan(const std::string& bytes);
std::string encode_cluster(const ClusterSpec& cluster);
// Throws Error: not a cluster message, ranks that are not numbered 0, 1, 2, ..., or
// pairs of others.
ClusterSpec decode_cluster(const std::string& bytes);

void to_wire(const Plan& plan, rpc::Plan* wire);
Plan from_wire(const rpc::Plan& wire);  // throws like decode_plan
void to_wire(const ClusterSpec& cluster, rpc::Cluster* wire);
ClusterSpec from_wire(const rpc::Cluster& wire);  // throws like decode_cluster
void to_wire(const RankSpec& rank, rpc::Inventory* wire);
RankSpec from_wire(const rpc::Inventory& wire);

}  // namespace spillway

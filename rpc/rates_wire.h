// A rank's CPU rates as messages of coordinator.proto. Called by plan_wire.cc. Thread: pure.
#pragma once

#include "coordinator.pb.h"
#include "parallel/cluster_spec.h"

namespace spillway {

void cpu_rates_to_wire(const CpuRates& rates, rpc::CpuRates* wire);
// Throws Error for a type of weights that nobody knows.
CpuRates cpu_rates_from_wire(const rpc::CpuRates& wire);

}  // namespace spillway

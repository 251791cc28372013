// A cluster for people and for programs; what `spillway probe` prints.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "parallel/cluster_spec.h"

namespace spillway {

// Host by host, rank by rank: facts, rates with their units, what was not measured left out. Ends
// with a newline.
std::string cluster_report(const ClusterSpec& cluster);
// The keys of a cluster file (docs/config.md).
nlohmann::ordered_json cluster_json(const ClusterSpec& cluster);

}  // namespace spillway

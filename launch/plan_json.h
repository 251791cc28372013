// A plan as JSON: stages, parts, prediction and every line of the ledger, bytes exact.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "parallel/plan.h"

namespace spillway {

nlohmann::ordered_json plan_json(const Plan& plan, const ModelSpec& model,
                                 const ClusterSpec& cluster);

}  // namespace spillway

// A plan as JSON: stages, parts, prediction and every line of the ledger, bytes exact.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "parallel/explain.h"
#include "parallel/plan.h"

namespace spillway {

nlohmann::ordered_json plan_json(const Plan& plan, const ModelSpec& model,
                                 const ClusterSpec& cluster);

// What the plan is bound by, what more memory would bring, what else there was.
nlohmann::ordered_json explanation_json(const Explanation& explanation);

}  // namespace spillway

// What a model and a request must satisfy before a plan is made of them, and the context that a
// request asks for. Used by planner.cc only. Pure; every fault is an Error that says what would do.
#pragma once

#include "parallel/planner.h"

namespace spillway {

// Stages of more ranks than these are not searched for: 1024 take 1 to 4 s
// (docs/bench/planning.md), 4096 had no answer in a minute.
inline constexpr int kMostFreeRanks = 1024;

// Shapes that fit together and types that the kernels can multiply with.
void check_model(const ModelSpec& model);

// tp, pp, split, ranks, limits, context and device agree with each other and with the model.
void check_request(const ModelSpec& model, const ClusterSpec& cluster, const PlanRequest& request);

// Throws the Error of a request whose stages all mix ranks that must compute on GPUs with ranks
// that cannot.
[[noreturn]] void refuse_mixture(const ClusterSpec& cluster, const PlanRequest& request);

// Tokens that a sequence may have: the request's, or min(the model's, 4096).
int64_t planned_context(const ModelSpec& model, const PlanRequest& request);

// Tokens that the training and the file's rope scaling cover; 0: the file does not say.
int64_t most_context(const ModelSpec& model);

}  // namespace spillway

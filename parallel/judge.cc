// See judge.h.
#include "parallel/judge.h"

#include <utility>

#include "parallel/cost.h"
#include "parallel/fit.h"

namespace spillway {

double plan_score(const Plan& plan, Objective objective) {
  const Prediction& p = plan.prediction;
  if (objective != Objective::kThroughput) return p.total_ms;
  // As many tokens are read as are written.
  return 1000.0 / p.sequences_tok_per_s + 1000.0 / p.prefill_tok_per_s;
}

bool before(const Found& a, const Found& b) {
  if (fits(a) != fits(b)) return fits(a);
  return fits(a) ? a.score < b.score : a.lack.bytes < b.lack.bytes;
}

bool worth_moving(const Found& a, const Found& b) {
  return before(a, b) && !(fits(b) && a.score * kWorthMoving >= b.score);
}

std::vector<Found> ways_of(const Candidate& candidate, const PlanTask& task,
                           std::span<const SpillWay> ways) {
  std::vector<Found> list;
  for (Plan& plan : lay_out(candidate, task, ways)) {
    plan.prediction = predict(plan, task.model, task.cluster, predicted_context(plan));
    Found found;
    found.lack = shortage(plan);
    found.score = plan_score(plan, task.request.objective);
    found.plan = std::move(plan);
    found.candidate = candidate;
    list.push_back(std::move(found));
  }
  return list;
}

const Found* best_of(const std::vector<Found>& list) {
  const Found* best = nullptr;
  for (const Found& found : list) {
    if (best == nullptr || before(found, *best)) best = &found;
  }
  return best;
}

Candidate pinned_to(const Candidate& candidate, const Plan& plan) {
  Candidate out = candidate;
  for (size_t s = 0; s < out.stages.size(); ++s) {
    out.stages[s].n_layers = plan.stages[s].layers.size();
  }
  return out;
}

}  // namespace spillway

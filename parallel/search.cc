// See search.h.
#include "parallel/search.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "parallel/candidates.h"
#include "parallel/cost.h"
#include "parallel/fit.h"

namespace spillway {
namespace {

// A later candidate must be predicted this much faster; earlier ones have fewer stages.
constexpr double kWorthIt = 1.02;
// Layers that a cut is moved by, in turn.
constexpr int64_t kCutSteps[] = {8, 4, 2, 1};
// A moved cut must be predicted this much faster.
constexpr double kWorthMoving = 1.002;

Found judged(Plan plan, Objective objective) {
  Found found;
  found.lack = shortage(plan);
  found.score = plan_score(plan, objective);
  found.plan = std::move(plan);
  return found;
}

bool fits(const Found& found) { return found.lack.bytes <= 0; }

// Of a candidate's ways the best one that fits, or the one that lacks least.
const Found* best_of(const std::vector<Found>& list) {
  const Found* best = nullptr;
  for (const Found& found : list) {
    const bool better =
        best == nullptr || (fits(found) ? !fits(*best) || found.score < best->score
                                        : !fits(*best) && found.lack.bytes < best->lack.bytes);
    if (better) best = &found;
  }
  return best;
}

std::vector<Found> ways_of(const Candidate& candidate, const PlanTask& task) {
  std::vector<Found> list;
  for (Plan& plan : lay_out(candidate, task)) {
    list.push_back(judged(std::move(plan), task.request.objective));
  }
  return list;
}

// Some stage waits for spilled weights, or some compute on CPUs beside others on GPUs: layers by
// speed are not the best there.
bool uneven(const Plan& plan) {
  const Prediction& p = plan.prediction;
  const bool gpus = plan.uses_gpu();
  const bool cpus = std::any_of(plan.parts.begin(), plan.parts.end(),
                                [](const RankPart& part) { return !part.gpu; });
  return p.cpu_ms + p.bus_ms + p.disk_ms > 0 || (gpus && cpus);
}

// The candidate with its cuts where the plan has them.
Candidate pinned_to(const Candidate& candidate, const Plan& plan) {
  Candidate out = candidate;
  for (size_t s = 0; s < out.stages.size(); ++s) {
    out.stages[s].n_layers = plan.stages[s].layers.size();
  }
  return out;
}

// Moves the stages' cuts while that helps.
void move_cuts(const Candidate& candidate, const PlanTask& task, Found& best) {
  Candidate at = pinned_to(candidate, best.plan);
  for (const int64_t step : kCutSteps) {
    bool moved = true;
    while (moved) {
      moved = false;
      for (size_t s = 0; s + 1 < at.stages.size(); ++s) {
        for (const int64_t by : {step, -step}) {
          Candidate next = at;
          next.stages[s].n_layers += by;
          next.stages[s + 1].n_layers -= by;
          if (next.stages[s].n_layers < 1 || next.stages[s + 1].n_layers < 1) continue;
          const std::vector<Found> list = ways_of(next, task);
          const Found* found = best_of(list);
          if (found == nullptr || !fits(*found)) continue;
          if (fits(best) && found->score * kWorthMoving >= best.score) continue;
          best = *found;
          at = std::move(next);
          moved = true;
        }
      }
    }
  }
}

void sort_found(std::vector<Found>& all, size_t chosen) {
  std::swap(all[0], all[chosen]);
  std::stable_sort(all.begin() + 1, all.end(), [](const Found& a, const Found& b) {
    if (fits(a) != fits(b)) return fits(a);
    return fits(a) ? a.score < b.score : a.lack.bytes < b.lack.bytes;
  });
}

}  // namespace

double plan_score(const Plan& plan, Objective objective) {
  const Prediction& p = plan.prediction;
  if (objective != Objective::kThroughput) return p.total_ms;
  // As many tokens are read as are written.
  return 1000.0 / p.sequences_tok_per_s + 1000.0 / p.prefill_tok_per_s;
}

std::vector<Found> search(const PlanTask& task) {
  const std::vector<Candidate> list = candidates(task);
  std::vector<Found> all;
  size_t best = 0;
  const Candidate* chosen = nullptr;
  for (const Candidate& candidate : list) {
    std::vector<Found> ways = ways_of(candidate, task);
    const Found* mine = best_of(ways);
    if (mine == nullptr) continue;
    const size_t at = all.size() + static_cast<size_t>(mine - ways.data());
    const bool first = chosen == nullptr;
    const bool fits_better = !first && !fits(all[best]) && mine->lack.bytes < all[best].lack.bytes;
    const bool faster =
        !first && fits(*mine) && fits(all[best]) && mine->score * kWorthIt < all[best].score;
    if (first || fits_better || faster) {
      best = at;
      chosen = &candidate;
    }
    std::move(ways.begin(), ways.end(), std::back_inserter(all));
  }
  if (all.empty()) return all;
  const bool free = chosen->free_shares && task.request.layers.empty() && chosen->stages.size() > 1;
  if (free && uneven(all[best].plan)) {
    all.push_back(all[best]);
    best = all.size() - 1;
    move_cuts(*chosen, task, all[best]);
  }
  sort_found(all, best);
  return all;
}

int64_t longest_context(const PlanTask& task, int64_t most) {
  constexpr int64_t kPage = 32;
  constexpr size_t kMostCandidates = 6;
  const auto with_context = [&](int64_t pages) {
    PlanTask out = task;
    out.request.context = std::min(most, pages * kPage);
    return out;
  };
  const auto holds = [&](const Candidate& candidate, int64_t pages) {
    const std::vector<Found> list = ways_of(candidate, with_context(pages));
    return std::any_of(list.begin(), list.end(), fits);
  };
  int64_t low = 0;
  const int64_t all = div_up(most, kPage);
  std::vector<Candidate> list = candidates(task);
  for (size_t i = 0; i < list.size() && i < kMostCandidates && low < all; ++i) {
    if (!holds(list[i], low + 1)) continue;
    if (holds(list[i], all)) return most;
    int64_t high = all;
    ++low;
    while (high - low > 1) {
      const int64_t middle = low + (high - low) / 2;
      (holds(list[i], middle) ? low : high) = middle;
    }
  }
  return std::min(most, low * kPage);
}

}  // namespace spillway

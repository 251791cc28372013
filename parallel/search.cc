// See search.h.
#include "parallel/search.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <utility>

#include "parallel/candidates.h"
#include "parallel/cost.h"
#include "parallel/fit.h"
#include "parallel/neighbours.h"
#include "parallel/pins.h"

namespace spillway {
namespace {

// A later candidate must be predicted this much faster; earlier ones have fewer stages.
constexpr double kWorthIt = 1.02;
// Layers that a cut is moved by, in turn.
constexpr int64_t kCutSteps[] = {8, 4, 2, 1};
// Of the steps that are tried.
constexpr int64_t kLeastRows = 256;
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

// With both of these at their best the others are rarely better.
constexpr std::array kSearchedWays = {SpillWay::kMixed, SpillWay::kHybrid};

std::vector<Found> ways_of(const Candidate& candidate, const PlanTask& task,
                           std::span<const SpillWay> ways = kSearchedWays) {
  std::vector<Found> list;
  for (Plan& plan : lay_out(candidate, task, ways)) {
    plan.prediction = predict(plan, task.model, task.cluster, predicted_context(plan));
    list.push_back(judged(std::move(plan), task.request.objective));
    list.back().candidate = candidate;
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
void move_cuts(const PlanTask& task, Found& best) {
  Candidate at = pinned_to(best.candidate, best.plan);
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

// The task with the steps of a plan that was made for it.
PlanTask with_rows(const PlanTask& task, const Plan& plan) {
  PlanTask out = task;
  if (plan.uses_gpu()) out.request.gpu_rows = plan.limits.max_rows;
  return out;
}

// Milliseconds of a token that is read and one that is written.
double both_ms(const Plan& plan) {
  return 1000.0 / plan.prediction.decode_tok_per_s + 1000.0 / plan.prediction.prefill_tok_per_s;
}

// Weights are spilled, or a rank that may compute on its GPU does not.
bool short_of_memory(const Plan& plan, const PlanTask& task) {
  if (!spill_text(plan).empty()) return true;
  return std::any_of(plan.parts.begin(), plan.parts.end(), [&](const RankPart& part) {
    return !part.gpu && task.request.device_of(part.rank) != DeviceChoice::kCpu &&
           task.cluster.ranks[static_cast<size_t>(part.rank)].gpu.present();
  });
}

// Of so many candidates, the best ones, other steps are tried; of many ranks, whose plans take
// longest, of fewer.
constexpr size_t kOtherSteps = 16;
constexpr size_t kOtherStepsOfMany = 3;
constexpr int kManyRanks = 8;

// What the steps' length may change: it lacks memory, or has stages that read a prompt's steps in
// turns and is judged by that.
bool steps_matter(const Found& found, const PlanTask& task) {
  const bool turns =
      task.request.objective == Objective::kThroughput && found.plan.stages.size() > 1;
  return turns || !fits(found) || short_of_memory(found.plan, task);
}

// Of what was found, the best way of each candidate, those whose steps matter, the best first.
std::vector<Candidate> with_steps_to_try(const PlanTask& task, const std::vector<Found>& all,
                                         const std::vector<size_t>& best_ways) {
  std::vector<const Found*> found;
  for (const size_t at : best_ways) {
    if (steps_matter(all[at], task)) found.push_back(&all[at]);
  }
  std::stable_sort(found.begin(), found.end(), [](const Found* a, const Found* b) {
    if (fits(*a) != fits(*b)) return fits(*a);
    return fits(*a) ? a->score < b->score : a->lack.bytes < b->lack.bytes;
  });
  const size_t most = task.cluster.size() > kManyRanks ? kOtherStepsOfMany : kOtherSteps;
  if (found.size() > most) found.resize(most);
  std::vector<Candidate> out;
  for (const Found* one : found) out.push_back(one->candidate);
  return out;
}

// Shorter steps, whose activations leave more room for weights, if as many tokens read as written
// are quicker so. Of stages in turns also where memory is not short: a prompt in more steps keeps
// more of them at work. Returns which is best then.
size_t with_fewer_rows(const PlanTask& task, const std::vector<Candidate>& candidates,
                       std::vector<Found>& all, size_t best) {
  const bool throughput = task.request.objective == Objective::kThroughput;
  const auto ms = [&](const Found& found) {
    return throughput ? found.score : both_ms(found.plan);
  };
  for (const int64_t rows : step_rows(task.request)) {
    if (rows == task.request.gpu_rows) continue;
    PlanTask fewer = task;
    fewer.request.gpu_rows = rows;
    for (const Candidate& candidate : candidates) {
      const std::vector<Found> ways = ways_of(candidate, fewer);
      const Found* mine = best_of(ways);
      if (mine == nullptr || !fits(*mine) || ms(*mine) * kWorthIt >= ms(all[best])) continue;
      best = all.size();
      all.push_back(*mine);
    }
  }
  return best;
}

// Neighbours that are laid out in all, by the number of ranks: up to four ranks every order is
// among the candidates, and beyond 16 a layout takes too long.
int most_neighbours(int n_ranks) {
  if (n_ranks <= 4 || n_ranks > 16) return 0;
  return n_ranks <= 6 ? 240 : n_ranks <= kManyRanks ? 120 : 24;
}
// Of so many candidates, the best ones.
constexpr size_t kStarts = 6;
constexpr size_t kStartsOfMany = 3;

// Ranks to other stages, one at a time, while that helps: sorted orders put neither a slow card
// between two fast ones nor, of CPUs and GPUs, some of these among those. Returns which is best.
size_t with_moved_ranks(const PlanTask& task, std::vector<Found>& all,
                        const std::vector<size_t>& best_ways, size_t best) {
  int left = most_neighbours(task.cluster.size());
  const std::vector<int> kinds = rank_kinds(task);
  const bool alike = std::equal(kinds.begin() + 1, kinds.end(), kinds.begin());
  if (left == 0 || alike || !ranks_are_free(task)) return best;
  std::vector<size_t> sorted = best_ways;
  std::erase_if(sorted, [&](size_t at) { return !fits(all[at]); });
  std::stable_sort(sorted.begin(), sorted.end(),
                   [&](size_t a, size_t b) { return all[a].score < all[b].score; });
  const size_t most = task.cluster.size() > 6 ? kStartsOfMany : kStarts;
  if (sorted.size() > most) sorted.resize(most);
  for (size_t s = 0; s < sorted.size(); ++s) {
    Found at = all[sorted[s]];
    // What one start leaves, the next ones have.
    const int mine = left / static_cast<int>(sorted.size() - s);
    int tried = 0;
    for (bool moved = true; moved && tried < mine;) {
      moved = false;
      for (const Candidate& next : neighbours(at.candidate, kinds, task.model.n_layers)) {
        if (tried == mine || moved) break;
        ++tried;
        const std::vector<Found> ways = ways_of(next, task);
        const Found* found = best_of(ways);
        if (found == nullptr || !fits(*found) || found->score * kWorthMoving >= at.score) continue;
        at = *found;
        moved = true;
      }
    }
    left -= tried;
    if (at.score * kWorthIt >= all[best].score) continue;
    best = all.size();
    all.push_back(std::move(at));
  }
  return best;
}

// What else could have been done with what is spilled, to compare.
void add_other_ways(const Candidate& chosen, const PlanTask& task, std::vector<Found>& all) {
  constexpr std::array kOthers = {SpillWay::kCpu, SpillWay::kStreamed};
  for (Found& found : ways_of(chosen, task, kOthers)) {
    if (!spill_text(found.plan).empty()) all.push_back(std::move(found));
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

std::vector<int64_t> step_rows(const PlanRequest& request) {
  std::vector<int64_t> all = {request.gpu_rows};
  if (!request.choose_gpu_rows) return all;
  for (int64_t rows = request.gpu_rows / 2; rows >= kLeastRows; rows /= 2) all.push_back(rows);
  return all;
}

std::vector<Found> search(const PlanTask& task) {
  std::vector<Found> all;
  std::vector<size_t> best_ways;  // of each candidate
  size_t best = 0;
  bool any = false;
  for (const Candidate& candidate : candidates(task)) {
    std::vector<Found> ways = ways_of(candidate, task);
    const Found* mine = best_of(ways);
    if (mine == nullptr) continue;
    const size_t at = all.size() + static_cast<size_t>(mine - ways.data());
    const bool fits_better = any && !fits(all[best]) && mine->lack.bytes < all[best].lack.bytes;
    const bool faster =
        any && fits(*mine) && fits(all[best]) && mine->score * kWorthIt < all[best].score;
    if (!any || fits_better || faster) best = at;
    any = true;
    best_ways.push_back(at);
    std::move(ways.begin(), ways.end(), std::back_inserter(all));
  }
  if (!any) return all;
  const size_t before = best;
  best = with_moved_ranks(task, all, best_ways, best);
  if (best != before) best_ways.push_back(best);
  if (fits(all[best]) && task.request.choose_gpu_rows) {
    best = with_fewer_rows(task, with_steps_to_try(task, all, best_ways), all, best);
  }
  const Candidate chosen = all[best].candidate;
  const bool pinned = !task.request.layers.empty() || !task.request.shares.empty();
  const bool free = chosen.free_shares && !pinned && chosen.stages.size() > 1;
  if (free && uneven(all[best].plan)) {
    all.push_back(all[best]);
    best = all.size() - 1;
    move_cuts(with_rows(task, all[best].plan), all[best]);
  }
  add_other_ways(chosen, with_rows(task, all[best].plan), all);
  sort_found(all, best);
  return all;
}

int64_t longest_context(const PlanTask& task, int64_t most) {
  constexpr int64_t kPage = 32;
  const auto with_context = [&](int64_t pages) {
    PlanTask out = task;
    out.request.context = std::min(most, pages * kPage);
    out.request.gpu_rows = step_rows(task.request).back();
    return out;
  };
  const auto holds = [&](const Candidate& candidate, int64_t pages) {
    // How fast they are does not matter here.
    return some_layout_fits(candidate, with_context(pages), kSearchedWays);
  };
  int64_t low = 0;
  const int64_t all = div_up(most, kPage);
  const std::vector<Candidate> list = candidates(task);
  const auto holds_all = [&](const Candidate& candidate) { return holds(candidate, all); };
  if (std::any_of(list.begin(), list.end(), holds_all)) return most;
  for (const Candidate& candidate : list) {
    if (!holds(candidate, low + 1)) continue;
    int64_t high = all;
    ++low;
    while (high - low > 1) {
      const int64_t middle = low + (high - low) / 2;
      (holds(candidate, middle) ? low : high) = middle;
    }
    // What is spilled for a context is whole halves: somewhat more may fit where less does not.
    for (const int64_t more : {16, 4, 2, 1}) {
      if (low + more <= all && holds(candidate, low + more)) low += more;
    }
  }
  return std::min(most, low * kPage);
}

}  // namespace spillway

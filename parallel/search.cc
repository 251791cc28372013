// See search.h.
#include "parallel/search.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <optional>
#include <utility>

#include "parallel/candidates.h"
#include "parallel/cuts.h"
#include "parallel/neighbours.h"
#include "parallel/pins.h"
#include "parallel/slopes.h"

namespace spillway {
namespace {

// Of the steps that are tried.
constexpr int64_t kLeastRows = 256;
// Up to so many ranks cuts by slopes are tried for neighbours, too, and up to so many with every
// choice of devices and of steps.
constexpr int kCutsTried = 8;
constexpr int kThorough = 3;

bool same_cuts(const Candidate& a, const Candidate& b) {
  return std::equal(a.stages.begin(), a.stages.end(), b.stages.begin(),
                    [](auto& x, auto& y) { return x.n_layers == y.n_layers; });
}

Candidate free_cuts(Candidate candidate) {
  for (StagePin& stage : candidate.stages) stage.n_layers = 0;
  return candidate;
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

// How much is tried, by the number of ranks: a layout of many takes long.
struct Effort {
  size_t by_slopes = 0;    // other stages of the same ranks, in any order
  size_t other_cuts = 0;   // candidates, the best ones, whose cuts are tried by slopes
  size_t moved_cuts = 0;   // whose cuts are moved
  int moves = 0;           // of cuts and shares for each
  size_t other_steps = 0;  // candidates with which other steps are tried
  // Of ranks to other stages: candidates to begin with, and neighbours in all. Up to four ranks
  // every order is among the candidates.
  size_t starts = 0;
  int neighbours = 0;
};
Effort effort_of(int n_ranks) {
  if (n_ranks <= 3) return {0, 64, 4, 60, 8, 0, 0};
  if (n_ranks <= 4) return {8, 16, 3, 40, 4, 0, 0};
  if (n_ranks <= 6) return {24, 12, 2, 40, 3, 0, 0};
  if (n_ranks <= 8) return {0, 8, 2, 30, 3, 3, 60};
  if (n_ranks <= 16) return {0, 3, 1, 30, 3, 3, 24};
  return {0, 0, 1, 30, 3, 0, 0};
}

class Search {
 public:
  explicit Search(const PlanTask& task)
      : task_(task), effort_(effort_of(task.cluster.size())), kinds_(rank_kinds(task)) {
    cuts_tried_ = task.cluster.size() <= kCutsTried;
    thorough_ = task.cluster.size() <= kThorough;
    alike_ = std::equal(kinds_.begin() + 1, kinds_.end(), kinds_.begin());
  }

  std::vector<Found> run() {
    std::vector<Candidate> list = candidates(task_);
    list.insert(list.end(), task_.holders.begin(), task_.holders.end());
    for (Candidate& candidate : list) take(std::move(candidate));
    if (all_.empty()) return {};
    if (slopes_help()) {
      for (Candidate& one : best_by_slopes(task_, all_, kinds_, effort_.by_slopes)) {
        take(std::move(one));
      }
    }
    const std::vector<Candidate> origins = origins_;
    for (const size_t i : best_first(effort_.other_cuts)) {
      if (auto found = with_best_cuts(task_, origins[i])) keep_better(best_ways_[i], *found);
    }
    move_ranks();
    for (const size_t i : best_first(effort_.moved_cuts)) move_cuts_of(task_, all_[best_ways_[i]]);
    choose_best();
    if (task_.request.choose_gpu_rows) fewer_rows();
    add_other_ways(with_rows(task_, all_[best_].plan));
    sort_found();
    return std::move(all_);
  }

 private:
  void take(Candidate candidate) {
    std::vector<Found> ways = ways_of(candidate, task_);
    const Found* mine = best_of(ways);
    if (mine == nullptr) return;
    best_ways_.push_back(all_.size() + static_cast<size_t>(mine - ways.data()));
    std::move(ways.begin(), ways.end(), std::back_inserter(all_));
    origins_.push_back(std::move(candidate));
  }

  // Candidates by their best ways, the best first, so many.
  std::vector<size_t> best_first(size_t most) const {
    std::vector<size_t> sorted(best_ways_.size());
    std::iota(sorted.begin(), sorted.end(), size_t{0});
    std::stable_sort(sorted.begin(), sorted.end(), [&](size_t a, size_t b) {
      return before(all_[best_ways_[a]], all_[best_ways_[b]]);
    });
    if (sorted.size() > most) sorted.resize(most);
    return sorted;
  }

  void keep_better(size_t at, const Found& found) {
    if (worth_moving(found, all_[at])) all_[at] = found;
  }

  // By speed, and where that may not be best by the slopes on each choice of devices.
  std::optional<Found> with_best_cuts(const PlanTask& task, const Candidate& candidate) const {
    const std::vector<Found> ways = ways_of(candidate, task);
    const Found* first = best_of(ways);
    if (first == nullptr) return {};
    Found best = *first;
    if (candidate.stages.size() < 2) return best;
    std::vector<Candidate> tried;
    for (const Found& way : ways) {
      // On every choice of devices where there are few ranks, else on the best one.
      if ((!thorough_ && &way != first) || !cuts_matter(task, candidate, way.plan)) continue;
      for (const Candidate& other : cuts_by_slopes(task, candidate, way.plan, thorough_)) {
        if (std::any_of(tried.begin(), tried.end(),
                        [&](const Candidate& one) { return same_cuts(one, other); })) {
          continue;
        }
        tried.push_back(other);
        const std::vector<Found> list = ways_of(other, task);
        const Found* mine = best_of(list);
        if (mine != nullptr && worth_moving(*mine, best)) best = *mine;
      }
    }
    return best;
  }

  void move_cuts_of(const PlanTask& task, Found& found) const {
    if (cuts_matter(task, found.candidate, found.plan)) move_cuts(task, found, effort_.moves);
  }

  // Ranks to other stages, one at a time, while that helps: sorted orders put neither a slow card
  // between two fast ones nor, of CPUs and GPUs, some of these among those.
  void move_ranks() {
    int left = effort_.neighbours;
    if (left == 0 || alike_ || !ranks_are_free(task_)) return;
    std::vector<size_t> starts = best_first(effort_.starts);
    std::erase_if(starts, [&](size_t i) { return !fits(all_[best_ways_[i]]); });
    for (size_t s = 0; s < starts.size(); ++s) {
      Found at = all_[best_ways_[starts[s]]];
      // What one start leaves, the next ones have.
      const int mine = left / static_cast<int>(starts.size() - s);
      const int tried = climb_neighbours(at, mine);
      left -= tried;
      if (at.score * kWorthMoving >= all_[best_ways_[starts[s]]].score) continue;
      best_ways_.push_back(all_.size());
      origins_.push_back(free_cuts(at.candidate));
      all_.push_back(std::move(at));
    }
  }

  int climb_neighbours(Found& at, int most) const {
    int tried = 0;
    for (bool moved = true; moved && tried < most;) {
      moved = false;
      for (const Candidate& next : neighbours(at.candidate, kinds_, task_.model.n_layers)) {
        if (tried == most || moved) break;
        ++tried;
        const auto found = cuts_tried_ ? with_best_cuts(task_, next) : best_way(task_, next);
        if (!found || !fits(*found) || found->score * kWorthMoving >= at.score) continue;
        at = *found;
        moved = true;
      }
    }
    return tried;
  }

  static std::optional<Found> best_way(const PlanTask& task, const Candidate& candidate) {
    const std::vector<Found> ways = ways_of(candidate, task);
    const Found* mine = best_of(ways);
    return mine == nullptr ? std::nullopt : std::optional<Found>(*mine);
  }

  // Candidates come with fewer stages first: others must be worth it.
  void choose_best() {
    best_ = best_ways_[0];
    for (const size_t at : best_ways_) {
      const bool less = !fits(all_[best_]) && before(all_[at], all_[best_]);
      const bool faster =
          fits(all_[at]) && fits(all_[best_]) && all_[at].score * kWorthIt < all_[best_].score;
      if (less || faster) best_ = at;
    }
  }

  // What the steps' length may change: it lacks memory, ranks are unlike, so that memory may have
  // decided, or stages read a prompt's steps in turns and it is judged by that.
  bool steps_matter(size_t i) const {
    const Found& found = all_[best_ways_[i]];
    const bool turns =
        task_.request.objective == Objective::kThroughput && found.plan.stages.size() > 1;
    return turns || !fits(found) || short_of_memory(found.plan, task_) ||
           cuts_matter(task_, origins_[i], found.plan);
  }

  // Shorter steps leave more room for weights, but read prompts slower: better are those with which
  // as many tokens read as written are quicker, or the objective is met better at no cost to these.
  bool better_steps(const Found& found) const {
    const Found& best = all_[best_];
    if (!fits(found) || !fits(best)) return before(found, best);
    if (task_.request.objective == Objective::kThroughput) {
      return found.score * kWorthIt < best.score;
    }
    const double now = both_ms(found.plan);
    const double then = both_ms(best.plan);
    return now * kWorthIt < then || (now <= then && found.score * kWorthIt < best.score);
  }

  // Of stages in turns also where memory is not short: a prompt in more steps keeps more of them at
  // work.
  void fewer_rows() {
    std::vector<size_t> tried = best_first(best_ways_.size());
    std::erase_if(tried, [&](size_t i) { return !steps_matter(i); });
    if (tried.size() > effort_.other_steps) tried.resize(effort_.other_steps);
    const std::vector<size_t> ways = best_ways_;
    for (const int64_t rows : step_rows(task_.request)) {
      if (rows == task_.request.gpu_rows) continue;
      PlanTask fewer = task_;
      fewer.request.gpu_rows = rows;
      std::vector<Found> laid;  // for the slopes
      for (const size_t i : tried) {
        const Candidate moved = all_[ways[i]].candidate;
        std::vector<Found> list = ways_of(moved, fewer);
        if (const Found* mine = best_of(list)) try_steps(*mine);
        std::move(list.begin(), list.end(), std::back_inserter(laid));
        if (!cuts_tried_) continue;
        std::optional<Found> open = with_best_cuts(fewer, origins_[i]);
        if (open && i == tried[0] && thorough_) move_cuts_of(fewer, *open);
        if (open) try_steps(*open);
      }
      if (laid.empty() || !slopes_help()) continue;
      for (const Candidate& one : best_by_slopes(fewer, laid, kinds_, effort_.by_slopes)) {
        if (const auto found = with_best_cuts(fewer, one)) try_steps(*found);
      }
    }
    move_cuts_of(with_rows(task_, all_[best_].plan), all_[best_]);
  }

  void try_steps(const Found& found) {
    if (!better_steps(found)) return;
    best_ = all_.size();
    all_.push_back(found);
  }

  bool slopes_help() const { return effort_.by_slopes > 0 && !alike_ && ranks_are_free(task_); }

  // What else could have been done with what is spilled, to compare.
  void add_other_ways(const PlanTask& task) {
    constexpr std::array kOthers = {SpillWay::kCpu, SpillWay::kStreamed};
    const Candidate chosen = all_[best_].candidate;
    for (Found& found : ways_of(chosen, task, kOthers)) {
      if (!spill_text(found.plan).empty()) all_.push_back(std::move(found));
    }
  }

  void sort_found() {
    std::swap(all_[0], all_[best_]);
    std::stable_sort(all_.begin() + 1, all_.end(), before);
  }

  const PlanTask& task_;
  const Effort effort_;
  const std::vector<int> kinds_;
  bool alike_ = true;        // all ranks are
  bool cuts_tried_ = false;  // of neighbours, too
  bool thorough_ = false;
  std::vector<Found> all_;
  std::vector<Candidate> origins_;  // as they were before anything was moved
  std::vector<size_t> best_ways_;   // of each of these
  size_t best_ = 0;
};

}  // namespace

std::vector<int64_t> step_rows(const PlanRequest& request) {
  std::vector<int64_t> all = {request.gpu_rows};
  if (!request.choose_gpu_rows) return all;
  for (int64_t rows = request.gpu_rows / 2; rows >= kLeastRows; rows /= 2) all.push_back(rows);
  return all;
}

std::vector<Found> search(const PlanTask& task) { return Search(task).run(); }

}  // namespace spillway

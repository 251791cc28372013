// See cuts.h.
#include "parallel/cuts.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <utility>

#include "parallel/fit.h"
#include "parallel/slopes.h"

namespace spillway {
namespace {

// Layers that a cut is moved by, in turn.
constexpr int64_t kCutSteps[] = {8, 4, 2, 1};
// Parts of a stage that a share is moved by, in turn.
constexpr double kShareSteps[] = {0.16, 0.08, 0.04, 0.02};
// Up to so many stages layers are moved between any two, beyond between neighbours.
constexpr size_t kFewStages = 4;

Candidate with_layers(const Candidate& candidate, const std::vector<int64_t>& layers) {
  Candidate out = candidate;
  for (size_t s = 0; s < layers.size(); ++s) out.stages[s].n_layers = layers[s];
  return out;
}

// The move, if it leaves both stages a layer.
std::optional<Candidate> moved(const Candidate& at, size_t from, size_t to, int64_t by) {
  if (at.stages[from].n_layers <= by) return {};
  Candidate next = at;
  next.stages[from].n_layers -= by;
  next.stages[to].n_layers += by;
  return next;
}

// Of the candidate's plan all cuts and shares as they are, but for one stage's shares.
Candidate with_shares(const Candidate& candidate, const Plan& plan, size_t stage,
                      const std::vector<double>& shares) {
  Candidate out = pinned_to(candidate, plan);
  out.free_shares = false;
  for (size_t s = 0; s < out.stages.size(); ++s) {
    out.stages[s].shares = s == stage ? shares : plan.stages[s].shares;
  }
  return out;
}

// Lays the candidate out and keeps it where it is better.
class Climb {
 public:
  Climb(const PlanTask& task, Found& best, int tries) : task_(task), best_(best), left_(tries) {}

  bool take(const Candidate& next) {
    if (left_ <= 0) return false;
    --left_;
    const std::vector<Found> list = ways_of(next, task_);
    const Found* found = best_of(list);
    if (found == nullptr || !worth_moving(*found, best_)) return false;
    best_ = *found;
    return true;
  }

  void cuts() {
    const size_t n = best_.candidate.stages.size();
    for (const int64_t step : kCutSteps) {
      for (bool again = true; again && left_ > 0;) {
        again = false;
        for (size_t from = 0; from < n; ++from) {
          for (size_t to = 0; to < n; ++to) {
            const bool near = from + 1 == to || to + 1 == from;
            if (from == to || (n > kFewStages && !near)) continue;
            // As far as it goes.
            for (bool more = true; more;) {
              const auto next = moved(best_.candidate, from, to, step);
              more = next && take(*next);
              again = again || more;
            }
          }
        }
      }
    }
  }

  void shares() {
    for (size_t s = 0; s < best_.candidate.stages.size(); ++s) {
      const size_t n = best_.candidate.stages[s].shares.size();
      if (n < 2 || n > kFewStages) continue;
      take_shares(s, std::vector<double>(n, 1.0 / static_cast<double>(n)));
      for (const double step : kShareSteps) {
        for (size_t from = 0; from < n; ++from) {
          for (size_t to = 0; to < n; ++to) {
            for (bool more = from != to; more;) {
              std::vector<double> shares = best_.plan.stages[s].shares;
              shares[from] -= step;
              shares[to] += step;
              more = shares[from] > 0 && take_shares(s, shares);
            }
          }
        }
      }
    }
  }

  int left() const { return left_; }

 private:
  bool take_shares(size_t stage, const std::vector<double>& shares) {
    return take(with_shares(best_.candidate, best_.plan, stage, shares));
  }

  const PlanTask& task_;
  Found& best_;
  int left_;
};

// Moves layers, and shares, away from the rank that lacks most while that helps; nothing is
// predicted.
class Room {
 public:
  Room(const PlanTask& task, const Candidate& candidate) : task_(task), at_(candidate) {}

  // The best of its ways' cuts and those by slopes; false when there is none.
  bool start() {
    const Candidate free = at_;
    const std::vector<Plan> plans = lay_out(free, task_, kSearchedWays);
    for (const Plan& plan : plans) take(free, plan);
    for (const Plan& plan : plans) {
      if (!best_ || enough()) break;
      take_all(pinned_to(free, plan));
      for (const Candidate& other : cuts_by_slopes(task_, free, plan, true)) take_all(other);
    }
    if (best_) at_ = pinned_to(at_, *best_);
    return best_.has_value();
  }

  bool climb() {
    for (size_t i = 0; i < std::size(kCutSteps); ++i) {
      while (!enough() && (move_layers(kCutSteps[i]) || move_share(kShareSteps[i]))) {
      }
    }
    return enough();
  }

  const Candidate& candidate() const { return at_; }

 private:
  bool enough() const { return lack_.bytes <= 0; }

  bool take(const Candidate& candidate, const Plan& plan) {
    const Shortage lack = shortage(plan);
    if (best_ && lack.bytes >= lack_.bytes) return false;
    best_ = plan;
    lack_ = lack;
    at_ = candidate;
    return true;
  }

  bool take_all(const Candidate& candidate) {
    bool taken = false;
    for (const Plan& plan : lay_out(candidate, task_, kSearchedWays)) {
      taken = take(candidate, plan) || taken;
    }
    return taken;
  }

  bool move_layers(int64_t step) {
    const auto from = static_cast<size_t>(best_->parts[static_cast<size_t>(lack_.rank)].stage);
    for (size_t to = 0; to < at_.stages.size(); ++to) {
      const auto next = to == from ? std::nullopt : moved(at_, from, to, step);
      if (next && take_all(*next)) return true;
    }
    return false;
  }

  bool move_share(double step) {
    const RankPart& part = best_->parts[static_cast<size_t>(lack_.rank)];
    const std::vector<double>& now = best_->stages[static_cast<size_t>(part.stage)].shares;
    const auto from = static_cast<size_t>(part.tp_index);
    for (size_t to = 0; to < now.size() && now[from] > step; ++to) {
      if (to == from) continue;
      std::vector<double> shares = now;
      shares[from] -= step;
      shares[to] += step;
      if (take_all(with_shares(at_, *best_, static_cast<size_t>(part.stage), shares))) return true;
    }
    return false;
  }

  const PlanTask& task_;
  Candidate at_;
  std::optional<Plan> best_;
  Shortage lack_;
};

bool unlike(const RankSpec& a, const RankSpec& b, bool gpu, const std::vector<double>& speeds) {
  return speeds[static_cast<size_t>(a.rank)] != speeds[static_cast<size_t>(b.rank)] ||
         (gpu && a.gpu.total_bytes != b.gpu.total_bytes);
}

// Whether some rank of the plan is unlike the first one, of the whole plan or of its stage. What
// is free, and small differences of measured rates, change from day to day.
bool has_unlike_ranks(const PlanTask& task, const Candidate& candidate, const Plan& plan,
                      bool within_stages) {
  std::vector<bool> on_gpu;
  for (const StagePlan& stage : plan.stages) on_gpu.push_back(plan.on_gpu(stage));
  const std::vector<double> speeds = rank_speeds(candidate, on_gpu, task);
  const auto& ranks = task.cluster.ranks;
  return std::any_of(plan.parts.begin(), plan.parts.end(), [&](const RankPart& part) {
    const StagePlan& stage = plan.stages[static_cast<size_t>(part.stage)];
    const int first = within_stages ? stage.ranks[0] : 0;
    return unlike(ranks[static_cast<size_t>(part.rank)], ranks[static_cast<size_t>(first)],
                  part.gpu, speeds);
  });
}

// Some stage waits for spilled weights, or some compute on CPUs beside others on GPUs.
bool uneven(const Plan& plan) {
  const Prediction& p = plan.prediction;
  const bool cpus = std::any_of(plan.parts.begin(), plan.parts.end(),
                                [](const RankPart& part) { return !part.gpu; });
  return p.cpu_ms + p.bus_ms + p.disk_ms > 0 || (plan.uses_gpu() && cpus);
}

}  // namespace

bool cuts_are_free(const PlanTask& task, const Candidate& candidate) {
  return candidate.free_shares && task.request.layers.empty() && task.request.shares.empty() &&
         task.request.split.empty();
}

bool cuts_matter(const PlanTask& task, const Candidate& candidate, const Plan& plan) {
  return cuts_are_free(task, candidate) &&
         (uneven(plan) || has_unlike_ranks(task, candidate, plan, false));
}

std::vector<Candidate> cuts_by_slopes(const PlanTask& task, const Candidate& candidate,
                                      const Plan& plan, bool both) {
  if (!cuts_are_free(task, candidate) || candidate.stages.size() < 2) return {};
  const std::vector<Slopes> slopes = all_slopes(task, plan);
  const Candidate now = pinned_to(candidate, plan);
  std::vector<Candidate> out;
  const bool turns = task.request.objective == Objective::kThroughput;
  for (const bool slowest : {false, true}) {
    if (!both && slowest != turns) continue;
    Candidate one = with_layers(candidate, by_slopes(slopes, task.model.n_layers, slowest));
    const auto same = [&](const Candidate& other) {
      return std::equal(one.stages.begin(), one.stages.end(), other.stages.begin(),
                        [](auto& a, auto& b) { return a.n_layers == b.n_layers; });
    };
    if (!same(now) && std::none_of(out.begin(), out.end(), same)) out.push_back(std::move(one));
  }
  return out;
}

int move_cuts(const PlanTask& task, Found& best, int tries) {
  best.candidate = pinned_to(best.candidate, best.plan);
  Climb climb(task, best, tries);
  climb.cuts();
  if (has_unlike_ranks(task, best.candidate, best.plan, true)) {
    const double score = best.score;
    climb.shares();
    if (best.score < score) climb.cuts();
  }
  return climb.left();
}

bool make_cuts_fit(const PlanTask& task, Candidate& candidate) {
  Room room(task, candidate);
  const bool enough = room.start() && room.climb();
  if (enough) candidate = room.candidate();
  return enough;
}

}  // namespace spillway

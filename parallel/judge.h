// Judge: a candidate laid out in each of its ways, predicted, and compared by the objective. Called
// by search.cc, cuts.cc and contexts.cc. Pure.
#pragma once

#include <array>
#include <span>
#include <vector>

#include "parallel/layout.h"
#include "parallel/shortage.h"
#include "parallel/spill_search.h"

namespace spillway {

struct Found {
  Plan plan;
  Shortage lack;
  double score = 0;  // by the objective; less is better
  Candidate candidate;
};

// What the objective makes of a plan.
double plan_score(const Plan& plan, Objective objective);

// A later candidate must be predicted this much faster; earlier ones have fewer stages.
inline constexpr double kWorthIt = 1.02;
// A moved cut, share or rank must be predicted this much faster.
inline constexpr double kWorthMoving = 1.002;

// With both of these at their best the others are rarely better.
inline constexpr std::array kSearchedWays = {SpillWay::kMixed, SpillWay::kHybrid};

inline bool fits(const Found& found) { return found.lack.bytes <= 0; }
// Whether the first one fits and the second does not, is the faster of two that fit, or lacks less.
bool before(const Found& a, const Found& b);
// The same, of two that fit by so much that cuts, shares and ranks are worth moving.
bool worth_moving(const Found& a, const Found& b);

std::vector<Found> ways_of(const Candidate& candidate, const PlanTask& task,
                           std::span<const SpillWay> ways = kSearchedWays);
// Of a candidate's ways the one before all others, nullptr when there is none.
const Found* best_of(const std::vector<Found>& list);

// The candidate with its cuts where the plan has them.
Candidate pinned_to(const Candidate& candidate, const Plan& plan);

}  // namespace spillway

// See contexts.h.
#include "parallel/contexts.h"

#include <algorithm>
#include <utility>

#include "parallel/candidates.h"
#include "parallel/cuts.h"
#include "parallel/fit.h"
#include "parallel/search.h"

namespace spillway {
namespace {

constexpr int64_t kPage = 32;
// Of so few ranks cuts are moved for every candidate.
constexpr int kFewRanks = 3;

class Contexts {
 public:
  Contexts(const PlanTask& task, int64_t most)
      : task_(task), most_(most), all_(div_up(most, kPage)) {}

  PlanTask with(int64_t pages) const {
    PlanTask out = task_;
    out.request.context = std::min(most_, pages * kPage);
    out.request.gpu_rows = step_rows(task_.request).back();
    return out;
  }

  bool holds(const Candidate& candidate, int64_t pages) const {
    // How fast they are does not matter here.
    return some_layout_fits(candidate, with(pages), kSearchedWays);
  }

  // The most that this one holds, which holds so many.
  int64_t most_of(const Candidate& candidate, int64_t low) const {
    int64_t high = all_ + 1;
    while (high - low > 1) {
      const int64_t middle = low + (high - low) / 2;
      (holds(candidate, middle) ? low : high) = middle;
    }
    // What is spilled for a context is whole halves: somewhat more may fit where less does not.
    for (const int64_t more : {16, 4, 2, 1}) {
      if (low + more <= all_ && holds(candidate, low + more)) low += more;
    }
    return low;
  }

  int64_t all() const { return all_; }
  int64_t tokens(int64_t pages) const { return std::min(most_, pages * kPage); }

 private:
  const PlanTask& task_;
  const int64_t most_;
  const int64_t all_;  // pages
};

}  // namespace

LongestContext longest_context(const PlanTask& task, int64_t most) {
  const Contexts contexts(task, most);
  const std::vector<Candidate> list = candidates(task);
  const int64_t all = contexts.all();
  if (std::any_of(list.begin(), list.end(), [&](auto& one) { return contexts.holds(one, all); })) {
    return {most, {}};
  }
  int64_t pages = 0;
  for (const Candidate& candidate : list) {
    if (contexts.holds(candidate, pages + 1)) pages = contexts.most_of(candidate, pages + 1);
  }
  LongestContext out;
  if (task.cluster.size() > kFewRanks) return {contexts.tokens(pages), {}};
  for (const Candidate& open : list) {
    if (!cuts_are_free(task, open)) continue;
    // A hundredth more at a time is worth another search.
    for (int64_t next = pages + 1 + pages / 100; next <= all; next = pages + 1 + pages / 100) {
      Candidate candidate = open;
      if (!make_cuts_fit(contexts.with(next), candidate)) break;
      pages = contexts.most_of(candidate, next);
      out.holder = candidate;
    }
  }
  out.tokens = contexts.tokens(pages);
  return out;
}

}  // namespace spillway

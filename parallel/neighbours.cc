// See neighbours.h.
#include "parallel/neighbours.h"

#include <utility>

namespace spillway {
namespace {

using Stages = std::vector<std::vector<int>>;  // ranks

Stages stages_with_ranks(const Candidate& candidate) {
  Stages stages;
  size_t at = 0;
  for (const StagePin& pin : candidate.stages) {
    const auto begin = candidate.order.begin() + static_cast<int64_t>(at);
    stages.emplace_back(begin, begin + static_cast<int64_t>(pin.shares.size()));
    at += pin.shares.size();
  }
  return stages;
}

Candidate candidate_of(const Stages& stages) {
  Candidate out;
  for (const std::vector<int>& ranks : stages) {
    if (ranks.empty()) continue;
    out.stages.push_back({0, std::vector<double>(ranks.size(), 1.0)});
    out.order.insert(out.order.end(), ranks.begin(), ranks.end());
  }
  return out;
}

// Whether some rank of a kind before this one is in its stage: moving that one is the same.
bool like_before(const std::vector<int>& ranks, size_t i, const std::vector<int>& kinds) {
  for (size_t j = 0; j < i; ++j) {
    const bool alike = kinds[static_cast<size_t>(ranks[j])] == kinds[static_cast<size_t>(ranks[i])];
    if (ranks[j] != 0 && alike) return true;
  }
  return false;
}

void add_swaps(const Stages& stages, const std::vector<int>& kinds, std::vector<Candidate>& out) {
  for (size_t a = 0; a < stages.size(); ++a) {
    for (size_t b = a + 1; b < stages.size(); ++b) {
      for (size_t i = 0; i < stages[a].size(); ++i) {
        for (size_t j = 0; j < stages[b].size(); ++j) {
          const int x = stages[a][i];
          const int y = stages[b][j];
          if (x == 0 || kinds[static_cast<size_t>(x)] == kinds[static_cast<size_t>(y)]) continue;
          if (like_before(stages[a], i, kinds) || like_before(stages[b], j, kinds)) continue;
          Stages next = stages;
          std::swap(next[a][i], next[b][j]);
          out.push_back(candidate_of(next));
        }
      }
    }
  }
}

// To the others' ends, and between them.
void add_moves(const Stages& stages, const std::vector<int>& kinds, int64_t most_stages,
               std::vector<Candidate>& out) {
  for (size_t from = 0; from < stages.size(); ++from) {
    for (size_t i = 0; i < stages[from].size(); ++i) {
      const int rank = stages[from][i];
      if (rank == 0 || like_before(stages[from], i, kinds)) continue;
      Stages without = stages;
      without[from].erase(without[from].begin() + static_cast<int64_t>(i));
      for (size_t to = 0; to < stages.size(); ++to) {
        if (to == from) continue;
        Stages next = without;
        next[to].push_back(rank);
        out.push_back(candidate_of(next));
      }
      const bool alone = without[from].empty();
      const auto n = static_cast<int64_t>(stages.size()) + (alone ? 0 : 1);
      for (size_t gap = 1; gap <= stages.size() && n <= most_stages; ++gap) {
        if (alone && (gap == from || gap == from + 1)) continue;
        Stages next = without;
        next.insert(next.begin() + static_cast<int64_t>(gap), {rank});
        out.push_back(candidate_of(next));
      }
    }
  }
}

}  // namespace

std::vector<Candidate> neighbours(const Candidate& candidate, const std::vector<int>& kinds,
                                  int64_t most_stages) {
  const Stages stages = stages_with_ranks(candidate);
  std::vector<Candidate> out;
  add_swaps(stages, kinds, out);
  add_moves(stages, kinds, most_stages, out);
  return out;
}

}  // namespace spillway

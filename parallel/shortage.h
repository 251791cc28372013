// What a plan lacks of the memory that its ranks have, and the Error that says so. Used by
// layout.cc, which moves layers where there is room, and by planner.cc. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "parallel/plan.h"

namespace spillway {

// A memory that a plan fills, and what it lacks there; 0 or less: the part fits.
struct Shortage {
  int rank = 0;
  const char* place = "host";
  int64_t bytes = 0;
};

// What this rank may take at this place, "host" or "gpu".
int64_t budget_bytes(const Plan& plan, int rank, const std::string& place);
// What all ranks lack there, less than 0: what is left; in one pass over the ledger, by rank.
struct Lacks {
  std::vector<int64_t> gpu;
  std::vector<int64_t> host;
  // Where the rank's weights and cache lie.
  int64_t at_home(const RankPart& part) const {
    return (part.gpu ? gpu : host)[static_cast<size_t>(part.rank)];
  }
};
Lacks lacks_of(const Plan& plan);

// Where this rank's weights and cache lie.
inline const char* place_of(const RankPart& part) { return part.gpu ? "gpu" : "host"; }

// Of the rank and memory that lack most.
Shortage shortage(const Plan& plan);

// Too little memory where a rank's cache lies. longest: the context with which the same split fits,
// with steps of as many tokens; 0: none.
class CacheTooLarge : public Error {
 public:
  CacheTooLarge(const std::string& what, const std::string& where, const std::string& todo,
                int64_t longest)
      : Error(what, where, todo), longest_(longest) {}
  int64_t longest() const { return longest_; }

 private:
  int64_t longest_;
};

// Throws the Error of a plan that does not fit: how much is needed where, and what would do.
[[noreturn]] void too_little_memory(const Plan& plan, const ModelSpec& model,
                                    const ClusterSpec& cluster, const Shortage& worst);

}  // namespace spillway

// Budgets: how much of each memory a plan may take. Given by the user (--gpu-memory,
// --host-memory), or what is free less a margin. Pure.
//
// A GPU's budget counts all that the process holds there, its CUDA context included, as nvidia-smi
// does. What is free was read when that context existed already, and the ledger counts it once more
// (kCudaContextBytes): so a plan that takes all that is free leaves as much as a margin, for
// kernels that CUDA loads late. A size beyond what is free would not come true: the budget is then
// what it is without the flag, and the plan says so ("24GiB" is what is printed on cards that have
// 23.19 GiB free). A part of what is free is taken by its word.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "parallel/cluster_spec.h"
#include "parallel/plan.h"

namespace spillway {

// Of what a host has free, the part that a plan leaves to the page cache and to others.
inline constexpr int64_t kHostMarginShare = 32;

// Bytes, or a part of what is free; neither: what is free less the margin.
struct Budget {
  int64_t bytes = 0;
  double fraction = 0;  // above 0, at most 1
  bool given() const { return bytes > 0 || fraction > 0; }
  bool operator==(const Budget&) const = default;
};

// "24GiB,12GiB", "11.5GiB", "800MiB", "0.8": one for all or one a rank; binary units (KiB, MiB,
// GiB, TiB, or K, M, G, T), decimal ones (KB, MB, GB, TB); a number without a unit is a fraction up
// to 1 and bytes above. Throws Error that names the flag, the word and an example.
std::vector<Budget> parse_budgets(const std::string& flag, const std::string& text);
std::string budgets_text(const std::vector<Budget>& budgets);

// What each rank may take. gpu, host: empty, one for all, or one a rank. One for all is of every
// GPU and of every host, whose ranks share it evenly. Throws Error when a list has another length
// than the ranks, or when a size is by an eighth more than the card has in all (one for all: than
// any card has), which is a slip of the pen. What a host has in all is not known here.
std::vector<RankBudget> budgets_of(const ClusterSpec& cluster, const std::vector<Budget>& gpu,
                                   const std::vector<Budget>& host);

// Where the plan's ranks were asked to take more than is free, a sentence each: what was asked for
// and what the budget is. GPUs only of ranks that compute on theirs.
std::vector<std::string> cut_budgets(const Plan& plan);

}  // namespace spillway

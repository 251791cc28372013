// What `verify` finds between a split's logits and the reference's, and what passes. Pure.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace spillway {

using Rows = std::vector<std::vector<float>>;  // of logits

// Nats, the mean over all rows of a split, where a GPU computes: room for rounding that int8 codes
// amplify (docs/numerics.md), far below what a wrong row or a missing sum does.
inline constexpr double kMostGpuKl = 0.02;

struct Difference {
  double max_logit = 0;                                         // infinite: a NaN
  double kl = 0;                                                // mean over a split's rows, nats
  int64_t greedy_prefix = std::numeric_limits<int64_t>::max();  // the shortest of the prompts
  bool same_bits = true;

  // One of n_rows rows: its greatest difference, its part of the mean divergence, its bits.
  void add_row(std::span<const float> reference, std::span<const float> row, int64_t n_rows);
  // The worst of both.
  void merge(const Difference& other);
};

// KL(p || q) of two rows of logits, in nats.
double kl_divergence(std::span<const float> p, std::span<const float> q);
bool same_bits(const Rows& a, const Rows& b);

// The rule where a GPU computes: a repeated run gave equal bits, no NaN, a divergence of at most
// kMostGpuKl, and no logit differs by more than `tolerance` (infinite: not judged). Greedy text may
// part at near-ties.
bool passes_on_gpus(const Difference& difference, bool repeats_bits, double tolerance);

}  // namespace spillway

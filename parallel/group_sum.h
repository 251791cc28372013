// Group sum: how the ranks of a group reach each other, and what a sum over them costs. Called by
// stage_clock.cc and, for stages that are not laid out yet, by candidates.cc. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "parallel/cluster_spec.h"

namespace spillway {

inline constexpr double kUnitsPerMs = 1e6;  // 1e9 a second, in a millisecond
inline double transfer_ms(int64_t bytes, double gb_per_s) {
  return static_cast<double>(bytes) / (gb_per_s * kUnitsPerMs);
}

// From GPU to GPU over peers' memory.
inline constexpr double kPeerGbPerS = 150.0;
// To pinned host memory and back from there, at a hop or at a sum that goes through the host.
double host_copy_ms(int64_t bytes);
// Between hosts' memories: the cluster's link, or the assumed one.
LinkSpec link_of(const ClusterSpec& cluster);
double message_ms(const LinkSpec& link, int64_t bytes);
// Between CPUs: as long as the two measured sums let expect up to the greater one's bytes, then by
// the rate.
double cpu_message_ms(const LinkSpec& link, int64_t bytes);

// By rank: it has a GPU, and no other rank is on that one.
std::vector<bool> alone_on_gpus(const ClusterSpec& cluster);

// Of the GPUs of a group.
struct GroupReach {
  bool peers = false;               // all on one host, each rank alone on its GPU
  std::optional<PairSpec> slowest;  // of the measured pairs; nothing unless all were measured
};
GroupReach reach_of(const ClusterSpec& cluster, const std::vector<bool>& alone,
                    const std::vector<int>& ranks);

// One sum of `rows` rows over so many ranks, between their GPUs or their hosts' memories.
double group_sum_ms(const ClusterSpec& cluster, const GroupReach& reach, size_t n_ranks, bool gpu,
                    int64_t rows, int64_t dim);
double group_sum_ms(const ClusterSpec& cluster, const std::vector<int>& ranks, bool gpu,
                    int64_t rows, int64_t dim);

// The reach of groups of neighbours in an order of ranks, each with one rank more than the last:
// what looking at every pair of every group would take the cube of the time for.
class GrowingReach {
 public:
  GrowingReach(const ClusterSpec& cluster, const std::vector<int>& order);
  // Begins anew with the rank at this place of the order.
  void begin(size_t place);
  // Takes in the next one.
  void grow();
  GroupReach reach() const;

 private:
  bool one_host(size_t a, size_t b) const;

  const ClusterSpec& cluster_;
  const std::vector<int>& order_;
  std::vector<bool> alone_;
  std::vector<const PairSpec*> pairs_;  // by the places of two; empty: no pair was measured
  size_t begin_ = 0;
  size_t end_ = 0;
  bool peers_ = false;
  bool all_measured_ = false;
  std::optional<PairSpec> slowest_;
};

}  // namespace spillway

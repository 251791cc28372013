// See group_sum.h.
#include "parallel/group_sum.h"

#include <algorithm>
#include <tuple>

namespace spillway {
namespace {

constexpr int64_t kSumBytes = 8;         // sums over ranks are f64
constexpr int64_t kPartialSumBytes = 4;  // those of GPUs f32
// Sums between GPUs of one host: over peers' memory inside of a graph 4.0 us for 16 KB, NCCL 6.6
// (two H200s); 128 MB of NCCL at 287 GB/s, of which cards with fewer links have less. The sum also
// normalises, which spares the layer a launch.
constexpr double kPeerSumMs = 0.005;
constexpr int64_t kSmallSumBytes = 16384;  // of the sum that PairSpec::small_sum_us is of
constexpr double kHostCopyMs = 0.02;
constexpr double kHostCopyGbPerS = 50.0;

bool measured(const PairSpec* pair) {
  return pair != nullptr && pair->gb_per_s > 0 && pair->small_sum_us > 0;
}

void add_pair(std::optional<PairSpec>& slowest, const PairSpec& pair) {
  if (!slowest) slowest = pair;
  slowest->gb_per_s = std::min(slowest->gb_per_s, pair.gb_per_s);
  slowest->small_sum_us = std::max(slowest->small_sum_us, pair.small_sum_us);
}

bool peers(const ClusterSpec& cluster, const std::vector<bool>& alone,
           const std::vector<int>& ranks) {
  const std::string& host = cluster.ranks[static_cast<size_t>(ranks.front())].host;
  return std::all_of(ranks.begin(), ranks.end(), [&](int rank) {
    return alone[static_cast<size_t>(rank)] &&
           cluster.ranks[static_cast<size_t>(rank)].host == host;
  });
}

std::optional<PairSpec> slowest_pair(const ClusterSpec& cluster, const std::vector<int>& ranks) {
  if (cluster.pairs.empty()) return {};
  std::vector<bool> of_group(cluster.ranks.size(), false);
  for (const int rank : ranks) of_group[static_cast<size_t>(rank)] = true;
  std::optional<PairSpec> slowest;
  size_t n = 0;
  for (const PairSpec& pair : cluster.pairs) {
    if (!of_group[static_cast<size_t>(pair.from)] || !of_group[static_cast<size_t>(pair.to)]) {
      continue;
    }
    if (!measured(&pair)) return {};
    add_pair(slowest, pair);
    ++n;
  }
  if (n < ranks.size() * (ranks.size() - 1) / 2) return {};
  return slowest;
}

}  // namespace

double host_copy_ms(int64_t bytes) { return kHostCopyMs + transfer_ms(bytes, kHostCopyGbPerS); }

LinkSpec link_of(const ClusterSpec& cluster) {
  return cluster.link.gb_per_s > 0 ? cluster.link : assumed_cluster(1).link;
}

double message_ms(const LinkSpec& link, int64_t bytes) {
  return link.latency_us * 1e-3 + transfer_ms(bytes, link.gb_per_s);
}

double cpu_message_ms(const LinkSpec& link, int64_t bytes) {
  if (link.row_sum_us <= 0) return message_ms(link, bytes);
  const double part = static_cast<double>(std::min(bytes, kRowSumBytes)) / kRowSumBytes;
  return (link.latency_us + part * (link.row_sum_us - link.latency_us)) * 1e-3 +
         transfer_ms(std::max<int64_t>(0, bytes - kRowSumBytes), link.gb_per_s);
}

std::vector<bool> alone_on_gpus(const ClusterSpec& cluster) {
  // As ranks_on_gpu has it, of all ranks at once.
  const auto key = [](const RankSpec* rank) {
    return std::tuple<const std::string&, const std::string&, int>(
        rank->host, rank->gpu.uuid, rank->gpu.uuid.empty() ? rank->gpu.ordinal : 0);
  };
  std::vector<const RankSpec*> ranks;
  for (const RankSpec& rank : cluster.ranks) {
    if (rank.gpu.present()) ranks.push_back(&rank);
  }
  std::sort(ranks.begin(), ranks.end(),
            [&](const RankSpec* a, const RankSpec* b) { return key(a) < key(b); });
  std::vector<bool> alone(cluster.ranks.size(), false);
  for (size_t i = 0; i < ranks.size(); ++i) {
    const bool before = i > 0 && key(ranks[i - 1]) == key(ranks[i]);
    const bool after = i + 1 < ranks.size() && key(ranks[i + 1]) == key(ranks[i]);
    alone[static_cast<size_t>(ranks[i]->rank)] = !before && !after;
  }
  return alone;
}

GroupReach reach_of(const ClusterSpec& cluster, const std::vector<bool>& alone,
                    const std::vector<int>& ranks) {
  return {peers(cluster, alone, ranks), slowest_pair(cluster, ranks)};
}

double group_sum_ms(const ClusterSpec& cluster, const GroupReach& reach, size_t n_ranks, bool gpu,
                    int64_t rows, int64_t dim) {
  if (n_ranks < 2) return 0;
  const int64_t values = rows * dim;
  if (!gpu) return cpu_message_ms(link_of(cluster), values * kSumBytes);
  const int64_t bytes = values * kPartialSumBytes;
  // Each rank sends and receives all but its own part twice: once to add, once added.
  const auto n = static_cast<double>(n_ranks);
  const double passes = 2 * (n - 1) / n;
  if (reach.slowest) {
    const double more =
        passes * transfer_ms(std::max<int64_t>(0, bytes - kSmallSumBytes), reach.slowest->gb_per_s);
    return reach.slowest->small_sum_us * 1e-3 + more;
  }
  if (!reach.peers) return message_ms(link_of(cluster), bytes) + 2 * host_copy_ms(bytes);
  return kPeerSumMs + passes * transfer_ms(bytes, kPeerGbPerS);
}

double group_sum_ms(const ClusterSpec& cluster, const std::vector<int>& ranks, bool gpu,
                    int64_t rows, int64_t dim) {
  const GroupReach reach =
      gpu && ranks.size() > 1 ? reach_of(cluster, alone_on_gpus(cluster), ranks) : GroupReach{};
  return group_sum_ms(cluster, reach, ranks.size(), gpu, rows, dim);
}

GrowingReach::GrowingReach(const ClusterSpec& cluster, const std::vector<int>& order)
    : cluster_(cluster), order_(order), alone_(alone_on_gpus(cluster)) {
  if (cluster.pairs.empty()) return;
  const size_t n = order.size();
  std::vector<size_t> places(n);
  for (size_t i = 0; i < n; ++i) places[static_cast<size_t>(order[i])] = i;
  pairs_.assign(n * n, nullptr);
  for (const PairSpec& pair : cluster.pairs) {
    const size_t a = places[static_cast<size_t>(pair.from)];
    const size_t b = places[static_cast<size_t>(pair.to)];
    pairs_[a * n + b] = pairs_[b * n + a] = &pair;
  }
}

bool GrowingReach::one_host(size_t a, size_t b) const {
  return cluster_.ranks[static_cast<size_t>(order_[a])].host ==
         cluster_.ranks[static_cast<size_t>(order_[b])].host;
}

void GrowingReach::begin(size_t place) {
  begin_ = place;
  end_ = place + 1;
  peers_ = alone_[static_cast<size_t>(order_[place])];
  all_measured_ = !pairs_.empty();
  slowest_.reset();
}

void GrowingReach::grow() {
  peers_ = peers_ && alone_[static_cast<size_t>(order_[end_])] && one_host(begin_, end_);
  for (size_t i = begin_; i < end_ && all_measured_; ++i) {
    const PairSpec* pair = pairs_[i * order_.size() + end_];
    all_measured_ = measured(pair);
    if (all_measured_) add_pair(slowest_, *pair);
  }
  ++end_;
}

GroupReach GrowingReach::reach() const {
  return {peers_, all_measured_ ? slowest_ : std::optional<PairSpec>{}};
}

}  // namespace spillway

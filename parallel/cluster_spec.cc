// The assumed cluster: what `plan` and the cost model use where nothing was measured. Ranks that
// are alike, and ranks that share a GPU.
#include "parallel/cluster_spec.h"

#include <algorithm>

#include "kernels/core/check.h"
#include "parallel/size_text.h"

namespace spillway {
namespace {

// One core of a rented x86 server, all measured 2026-11-22: one thread of an H100 machine's host
// reads 8 GB/s of memory (8 threads 57, 16 threads 93).
constexpr double kReadGbPerS = 8.0;
// int8 multiply-adds of one AVX2 core: a quarter of what kernels/cpu reaches on one Zen 5 core with
// 512-bit vectors (Q8_0, 32 columns: 400).
constexpr double kMatrixGopPerS = 100.0;
// A rank's memory: the smallest machine that is commonly rented has 8 GiB a core.
constexpr int64_t kMemoryFreeBytes = int64_t{8} << 30;
// Open MPI in shared memory: 2 ranks take 0.6 us for 4 bytes and 14 us for 32 KB when each has a
// core of its own; waits that yield and a third rank make it some microseconds.
constexpr double kLinkLatencyUs = 5.0;
constexpr double kLinkGbPerS = 2.0;

constexpr double RankSpec::*kHostRates[] = {&RankSpec::read_gb_per_s, &RankSpec::matrix_gop_per_s,
                                            &RankSpec::pin_gb_per_s, &RankSpec::disk_gb_per_s,
                                            &RankSpec::page_cache_gb_per_s};
constexpr double HostRead::*kHostReadRates[] = {&HostRead::gb_per_s, &HostRead::beside_bus_gb_per_s,
                                                &HostRead::bus_gb_per_s};
constexpr double GpuSpec::*kGpuRates[] = {&GpuSpec::read_gb_per_s, &GpuSpec::matrix_tflops,
                                          &GpuSpec::h2d_gb_per_s, &GpuSpec::d2h_gb_per_s,
                                          &GpuSpec::launch_gap_us};
constexpr double CpuRates::*kCpuRates[] = {&CpuRates::attend_gb_per_s, &CpuRates::attend_gop_per_s,
                                           &CpuRates::row_value_ns, &CpuRates::value_ns,
                                           &CpuRates::layer_us};
constexpr double ProductRate::*kProductRates[] = {&ProductRate::row_gb_per_s,
                                                  &ProductRate::gop_per_s};
// Those that ranks on one GPU divide among themselves.
constexpr double GpuSpec::*kSharedRates[] = {&GpuSpec::read_gb_per_s, &GpuSpec::matrix_tflops,
                                             &GpuSpec::h2d_gb_per_s, &GpuSpec::d2h_gb_per_s};

bool same_types(const CpuRates& a, const CpuRates& b) {
  return a.threads == b.threads &&
         std::equal(a.products.begin(), a.products.end(), b.products.begin(), b.products.end(),
                    [](const auto& x, const auto& y) { return x.type == y.type; });
}

// settle: the median of what a function finds in like ranks, nullptr in those without it.
template <typename Settle>
void settle_cpu_rates(RankSpec& rank, const Settle& settle) {
  for (CpuRates RankSpec::*rates : {&RankSpec::cpu_alone, &RankSpec::cpu_together}) {
    const CpuRates own = rank.*rates;
    for (double CpuRates::*rate : kCpuRates) {
      (rank.*rates).*rate = settle([&](const RankSpec& of) {
        return same_types(of.*rates, own) ? &((of.*rates).*rate) : nullptr;
      });
    }
    for (size_t i = 0; i < own.products.size(); ++i) {
      for (double ProductRate::*rate : kProductRates) {
        (rank.*rates).products[i].*rate = settle([&](const RankSpec& of) {
          return same_types(of.*rates, own) ? &((of.*rates).products[i].*rate) : nullptr;
        });
      }
    }
  }
}

bool same_gpu(const RankSpec& a, const RankSpec& b) {
  if (!a.gpu.present() || !b.gpu.present() || a.host != b.host) return false;
  return a.gpu.uuid == b.gpu.uuid && (!a.gpu.uuid.empty() || a.gpu.ordinal == b.gpu.ordinal);
}

}  // namespace

std::string GpuSpec::text() const {
  constexpr size_t kUuidStart = 12;  // "GPU-" and eight digits, as nvidia-smi -L begins
  std::string out = "GPU " + std::to_string(ordinal) + " " + name;
  if (!uuid.empty()) out += " (" + uuid.substr(0, kUuidStart) + ")";
  return out;
}

ClusterSpec assumed_cluster(int n_ranks) {
  CHECK_GE(n_ranks, 1);
  ClusterSpec cluster;
  for (int i = 0; i < n_ranks; ++i) {
    RankSpec rank;
    rank.rank = i;
    rank.host = "assumed";
    rank.local_rank = i;
    rank.local_size = n_ranks;
    rank.cpu = "assumed x86-64 core";
    rank.isa = "assumed";
    rank.memory_free_bytes = kMemoryFreeBytes;
    rank.read_gb_per_s = kReadGbPerS;
    rank.matrix_gop_per_s = kMatrixGopPerS;
    cluster.ranks.push_back(rank);
  }
  cluster.link = {kLinkLatencyUs, kLinkGbPerS, false};
  return cluster;
}

const PairSpec* ClusterSpec::pair(int a, int b) const {
  for (const PairSpec& pair : pairs) {
    if (pair.from == std::min(a, b) && pair.to == std::max(a, b)) return &pair;
  }
  return nullptr;
}

ClusterSpec like_ranks_equal(const ClusterSpec& cluster) {
  const auto like = [](const RankSpec& a, const RankSpec& b) {
    return a.host == b.host && a.cpu == b.cpu && a.isa == b.isa && a.threads == b.threads &&
           a.measured == b.measured && a.gpu.name == b.gpu.name;
  };
  ClusterSpec out = cluster;
  for (RankSpec& rank : out.ranks) {
    std::vector<const RankSpec*> alike;
    for (const RankSpec& other : cluster.ranks) {
      if (like(rank, other)) alike.push_back(&other);
    }
    const auto settle = [&](const auto& rate_of) {
      std::vector<double> values;
      for (const RankSpec* other : alike) {
        if (const double* rate = rate_of(*other)) values.push_back(*rate);
      }
      std::sort(values.begin(), values.end());
      return values[values.size() / 2];
    };
    for (double RankSpec::*rate : kHostRates) {
      rank.*rate = settle([&](const RankSpec& of) { return &(of.*rate); });
    }
    for (double GpuSpec::*rate : kGpuRates) {
      rank.gpu.*rate = settle([&](const RankSpec& of) { return &(of.gpu.*rate); });
    }
    for (size_t i = 0; i < rank.host_reads.size(); ++i) {
      for (double HostRead::*rate : kHostReadRates) {
        rank.host_reads[i].*rate = settle([&](const RankSpec& of) {
          const bool there =
              i < of.host_reads.size() && of.host_reads[i].threads == rank.host_reads[i].threads;
          return there ? &(of.host_reads[i].*rate) : nullptr;
        });
      }
    }
    for (double HostRead::*rate : kHostReadRates) {
      rank.together.*rate = settle([&](const RankSpec& of) {
        return of.together.threads == rank.together.threads ? &(of.together.*rate) : nullptr;
      });
    }
    settle_cpu_rates(rank, settle);
  }
  return out;
}

std::string busy_text(const ClusterSpec& cluster) {
  constexpr double kBusy = 0.1;
  double most = 0;
  for (const RankSpec& rank : cluster.ranks) most = std::max(most, rank.busy_share);
  if (most < kBusy) return "";
  return "rates measured while the machine was busy (others had " + fixed_text(100 * most, 0) +
         " % of the threads' time): predictions may be off; `spillway probe --refresh` on an idle "
         "machine measures again";
}

RankSpec with_rates(const RankSpec& facts, const RankSpec& measured) {
  RankSpec out = facts;
  for (double RankSpec::*rate : kHostRates) out.*rate = measured.*rate;
  out.host_reads = measured.host_reads;
  out.together = measured.together;
  out.cpu_alone = measured.cpu_alone;
  out.cpu_together = measured.cpu_together;
  out.measured = measured.measured;
  out.busy_share = measured.busy_share;
  if (!facts.gpu.present() || !measured.gpu.present()) return out;
  for (double GpuSpec::*rate : kGpuRates) out.gpu.*rate = measured.gpu.*rate;
  return out;
}

std::vector<int> ranks_on_gpu(const ClusterSpec& cluster, int rank) {
  std::vector<int> ranks;
  for (const RankSpec& other : cluster.ranks) {
    if (same_gpu(cluster.ranks[static_cast<size_t>(rank)], other)) ranks.push_back(other.rank);
  }
  return ranks;
}

ClusterSpec with_shared_gpus(const ClusterSpec& cluster) {
  ClusterSpec out = cluster;
  for (RankSpec& rank : out.ranks) {
    const std::vector<int> ranks = ranks_on_gpu(cluster, rank.rank);
    if (ranks.size() < 2) continue;
    for (const int other : ranks) {
      const GpuSpec& seen = cluster.ranks[static_cast<size_t>(other)].gpu;
      rank.gpu.free_bytes = std::min(rank.gpu.free_bytes, seen.free_bytes);
    }
    rank.gpu.free_bytes /= static_cast<int64_t>(ranks.size());
    for (double GpuSpec::*rate : kSharedRates) rank.gpu.*rate /= static_cast<double>(ranks.size());
  }
  return out;
}

}  // namespace spillway

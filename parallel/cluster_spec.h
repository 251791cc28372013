// ClusterSpec: the machines as measured: one RankSpec a rank. probe.* fills a rank's own; the
// coordinator gathers them. Without a cluster, `plan` makes an assumed one and says so.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/core/quant.h"

namespace spillway {

// The GPU of a rank, as kernels/cuda/device.h describes it and as measured.
struct GpuSpec {
  std::string name;  // "NVIDIA H100 80GB HBM3"; empty: the rank has none
  std::string uuid;  // "GPU-…", as nvidia-smi prints it
  int ordinal = -1;  // as CUDA counts, after CUDA_VISIBLE_DEVICES
  int major = 0;     // compute capability
  int minor = 0;
  int multiprocessors = 0;
  int64_t total_bytes = 0;
  int64_t free_bytes = 0;    // with this process' CUDA context already there
  double read_gb_per_s = 0;  // measured: device memory read, 1e9 bytes; 0: not measured
  double matrix_tflops = 0;  // bf16, 1e12 operations; 0: not measured
  // The bus between the device and pinned host memory, one way at a time; 0: not measured.
  double h2d_gb_per_s = 0;
  double d2h_gb_per_s = 0;
  double launch_gap_us = 0;  // an empty kernel inside of a graph; 0: not measured
  int numa_node = -1;        // of the host, that the device hangs on; -1: unknown
  bool present() const { return !name.empty(); }
  // "GPU 0 NVIDIA H100 80GB HBM3 (GPU-6f1c2a3b)": with the first characters of the UUID.
  std::string text() const;
};

// Host memory as read by so many of a rank's threads.
struct HostRead {
  int threads = 0;
  double gb_per_s = 0;             // while nothing else runs
  double beside_bus_gb_per_s = 0;  // while pinned memory is copied to the rank's GPU; 0: unknown
  double bus_gb_per_s = 0;         // of that copy meanwhile
  bool operator==(const HostRead&) const = default;
};

// Products of weights of one type by all of a rank's threads, in the mixture of a layer: two thirds
// into floats, a third as parts of sums over ranks.
struct ProductRate {
  QuantType type = QuantType::kF32;
  double row_gb_per_s = 0;  // of packed weights that no cache holds, times one row
  double gop_per_s = 0;     // 1e9 multiply-adds, times many rows
  bool operator==(const ProductRate&) const = default;
};

// What a layer's ops reach on a rank's threads; parallel/cpu_rates.h measures it.
struct CpuRates {
  int threads = 0;                         // at work on the host; 0: not measured
  std::vector<ProductRate> products = {};  // by type, rising
  double attend_gb_per_s = 0;              // one row: an f16 cache read
  double attend_gop_per_s = 0;             // many rows: 1e9 f32 multiply-adds
  // The other ops of a layer (norms, quantising, gates, sums): of one row, nanoseconds for each of
  // its dim + ff values; of many rows, likewise; and what a layer takes beyond that.
  double row_value_ns = 0;
  double value_ns = 0;
  double layer_us = 0;
  bool operator==(const CpuRates&) const = default;
};

struct RankSpec {
  int rank = 0;
  std::string host;
  int local_rank = 0;  // index among the ranks on this host
  int local_size = 1;  // ranks on this host
  int64_t pid = 0;
  std::string cpu;                // model name
  std::string isa;                // what the kernels will use: "avx512-vnni"
  int threads = 1;                // of this rank's pool
  int64_t memory_free_bytes = 0;  // this rank's fair part of what the host (or cgroup) has free
  double read_gb_per_s = 0;       // measured: memory read by this rank's threads, 1e9 bytes
  double matrix_gop_per_s = 0;    // measured: int8 products, 1e9 multiply-adds
  bool measured = false;          // false: assumed values
  GpuSpec gpu = {};               // not present: none, or --device cpu
  std::vector<HostRead> host_reads = {};  // by threads, rising, the last with all; empty: unknown
  double pin_gb_per_s = 0;                // host memory being pinned; 0: not measured
  int numa_nodes = 1;                     // of the host
  // The model's folder: past the page cache, and out of it; 0: not measured.
  double disk_gb_per_s = 0;
  double page_cache_gb_per_s = 0;
  // This rank's reads while all of the host's ranks do the same; threads: of all of them; 0: not
  // measured.
  HostRead together = {};
  // Of a rank without a GPU: while the host's other ranks wait for it, as they wait for messages,
  // and while all of them do the same.
  CpuRates cpu_alone = {};
  CpuRates cpu_together = {};
  // Of the time in which its CPU was measured: the share in which others had its threads' cores.
  double busy_share = 0;
};

struct LinkSpec {
  double latency_us = 0;  // of a small all-reduce over all ranks
  double gb_per_s = 0;    // of a large one, bytes of the vector over time
  bool measured = false;
  // One of kRowSumBytes, which is slower than the two let expect: beyond an eager message's size
  // MPI asks first; 0: not measured.
  double row_sum_us = 0;
};
inline constexpr int64_t kRowSumBytes = 8192;

// Between the GPUs of two ranks.
struct PairSpec {
  int from = 0;  // below `to`
  int to = 0;
  // What the sums of the two go through: "peer" (each other's memory), "nccl" (which takes pinned
  // host memory between cards without peer access), or "staged": host memory and MPI, also between
  // hosts.
  std::string fabric;
  double gb_per_s = 0;      // one way, of the slower direction
  double small_sum_us = 0;  // an all-reduce of 16 KiB over the two, inside of a graph where it can
};

struct ClusterSpec {
  std::vector<RankSpec> ranks;  // ranks[i].rank == i
  LinkSpec link;                // of all ranks, between hosts' memories
  std::vector<PairSpec> pairs;  // of ranks with GPUs, by from, then to; empty: not measured
  // nullptr when it was not measured. In any order of the two.
  const PairSpec* pair(int a, int b) const;
  int size() const { return static_cast<int>(ranks.size()); }
};

// n ranks of an assumed machine on one host, for `plan` on any machine.
ClusterSpec assumed_cluster(int n_ranks);

// The same cluster with like ranks made equal: ranks of one host with the same processor,
// instruction set and threads get the median of their measured rates. They share the machine, so
// what one of them measured in a busy moment says nothing about it.
ClusterSpec like_ranks_equal(const ClusterSpec& cluster);

// "rates measured while the machine was busy (others had 23 % of the threads' time): …", of the
// rank that it was worst for; "" below 10 %.
std::string busy_text(const ClusterSpec& cluster);

// What was measured of the one rank, and the facts of the other. The GPU's only when both have one.
RankSpec with_rates(const RankSpec& facts, const RankSpec& measured);

// The ranks on the GPU of this one, itself among them, in order: those of its host that name the
// same UUID. Empty when it has none.
std::vector<int> ranks_on_gpu(const ClusterSpec& cluster, int rank);
// The same cluster with every GPU divided among its ranks: of its free bytes, the least that one of
// them saw, and of its rates each gets an equal part, since they take turns.
ClusterSpec with_shared_gpus(const ClusterSpec& cluster);

}  // namespace spillway

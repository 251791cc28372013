// See rank_rates.h.
#include "launch/rank_rates.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "kernels/core/error.h"
#include "launch/kept_rates.h"
#include "parallel/agreement.h"
#include "parallel/cluster_file.h"
#include "parallel/cpu_rates.h"
#include "parallel/disk_rate.h"
#include "parallel/host_reads.h"
#include "parallel/pair_probe.h"
#include "parallel/probe.h"

namespace spillway {
namespace {

// A step that all ranks begin together; what one of them throws, all throw.
template <typename Step>
void together(World& world, const Step& step) {
  world.communicator->barrier();
  agree(world, obstacle_of(step));
}

int most_on_a_host(const World& world) {
  std::vector<int> ranks(world.hosts.size(), 0);
  for (const int host : world.hosts) ++ranks[static_cast<size_t>(host)];
  return *std::max_element(ranks.begin(), ranks.end());
}

// The best of a few: what is kept must not be what one busy moment made of it. The greatest rate of
// a few would be that of the moment in which others took the cores from the small sums alone.
LinkSpec best_link(World& world) {
  constexpr int kRuns = 5;
  LinkSpec best = probe_link(*world.communicator);
  std::vector<double> rates = {best.gb_per_s};
  for (int run = 1; run < kRuns && world.size > 1; ++run) {
    const LinkSpec link = probe_link(*world.communicator);
    best.latency_us = std::min(best.latency_us, link.latency_us);
    best.row_sum_us = std::min(best.row_sum_us, link.row_sum_us);
    rates.push_back(link.gb_per_s);
  }
  std::sort(rates.begin(), rates.end());
  best.gb_per_s = rates[rates.size() / 2];
  return best;
}

void measure_gpu_rates(GpuSpec& gpu, const GpuSource& source) {
  if (!gpu.present()) return;
  gpu.read_gb_per_s = source.read_gb_per_s();
  gpu.matrix_tflops = source.matrix_tflops();
  gpu.launch_gap_us = source.launch_gap_us();
}

// The host's memory: its ranks one after the other, then all of them at once.
void measure_reads(World& world, const cpu::Exec& exec, const BusLoad& bus, RankSpec& mine) {
  constexpr double kTogetherSeconds = 0.3;
  for (int turn = 0; turn < most_on_a_host(world); ++turn) {
    together(world, [&] {
      if (mine.local_rank != turn) return;
      mine.host_reads = measure_host_reads(exec, mine.memory_free_bytes, bus);
      mine.read_gb_per_s = mine.host_reads.back().gb_per_s;
    });
  }
  if (most_on_a_host(world) < 2) return;
  std::optional<ReadBuffer> buffer;
  together(world, [&] { buffer.emplace(exec, read_buffer_bytes(mine.memory_free_bytes)); });
  together(world, [&] {
    if (mine.local_size < 2) return;
    const int threads = exec.pool->size() * mine.local_size;
    mine.together = measure_together(*buffer, threads, kTogetherSeconds, bus);
  });
}

// Of what is measured of the ranks' CPUs: 44 slices for all types by `probe`, 6 to 10 for a model's
// at a job's start, there one by one only where few ranks share a host.
constexpr double kSliceSeconds = 0.02;
constexpr double kQuickSliceSeconds = 0.006;
constexpr int kQuickMostRanks = 4;

// How much is measured of the ranks' CPUs.
struct CpuLook {
  std::span<const QuantType> types;
  double seconds = 0;        // of a slice, CpuProbe::slices() of them
  int most_ranks = 1 << 20;  // on a host, for them to be measured one by one as well
};

// What layers reach on CPUs: rank by rank, while the host's others wait for it, and all at once.
// Ranks with GPUs, whose halves on CPUs count by memory's reads, only wait.
void measure_cpus(World& world, const cpu::Exec& exec, const ReadBuffer& weights,
                  const CpuLook& look, RankSpec& mine) {
  const bool mine_counts = !mine.gpu.present();
  std::array<double, 1> n = {mine_counts ? 1.0 : 0.0};
  world.communicator->all_reduce(n);
  if (n[0] == 0) return;
  std::optional<CpuProbe> probe;
  together(world, [&] {
    if (mine_counts) probe.emplace(exec, weights);
  });
  const auto barrier = [&] { world.communicator->barrier(); };
  const auto wait = [&] {
    for (int i = 0; i < CpuProbe::slices(look.types); ++i) barrier();
    barrier();
  };
  const int ranks = most_on_a_host(world);
  const int turns = ranks <= look.most_ranks ? ranks : 0;
  for (int turn = 0; turn < turns; ++turn) {
    if (!mine_counts || mine.local_rank != turn) {
      wait();
      continue;
    }
    mine.cpu_alone = probe->measure(mine.threads, look.types, look.seconds, false, barrier);
    barrier();
  }
  // Before all measure at once: where ranks outnumber the cores they take them from each other.
  if (mine_counts) mine.busy_share = probe->busy_share();
  if (ranks < 2) return;
  if (!mine_counts) return wait();
  const int threads = mine.threads * mine.local_size;
  const CpuRates all = probe->measure(threads, look.types, look.seconds, true, barrier);
  barrier();
  if (turns == 0) mine.cpu_alone = all;
  if (mine.local_size > 1) mine.cpu_together = all;
}

}  // namespace

JobRates settle_rates(World& world, const cpu::Exec& exec, const GpuSource& gpus,
                      const RankSpec& facts, std::span<const QuantType> types) {
  JobRates rates;
  rates.mine = facts;
  const std::string fingerprint = cluster_fingerprint(gather_texts(world, rank_fingerprint(facts)));
  std::string text;
  if (world.front()) {
    const auto kept = find_kept_rates(kept_rates_folder(), fingerprint, world.size, rates.warning);
    if (kept) {
      text = cluster_text(kept->file.cluster, {});
      rates.note = kept_rates_text(*kept);
    }
  }
  text = share_from(world, 0, text);
  if (!text.empty()) {
    ClusterSpec kept = parse_cluster(text, "kept rates").cluster;
    rates.mine = with_rates(facts, kept.ranks[static_cast<size_t>(world.rank)]);
    rates.link = kept.link;
    rates.pairs = std::move(kept.pairs);
    rates.kept = true;
    if (world.front() && rates.warning.empty()) rates.warning = busy_text(kept);
    return rates;
  }
  // All measure before the link's probe, so that nobody waits there while another is still busy.
  ReadBuffer buffer(exec, past_caches_bytes(rates.mine.memory_free_bytes));
  measure_rates(exec, buffer, rates.mine, [&] { world.communicator->barrier(); });
  measure_cpus(world, exec, buffer, {types, kQuickSliceSeconds, kQuickMostRanks}, rates.mine);
  rates.note = no_kept_rates_text();
  const std::string warning = measure_gpu(rates.mine.gpu, gpus);
  if (!warning.empty()) rates.warning = warning;
  rates.link = probe_link(*world.communicator);
  return rates;
}

ClusterSpec gather_cluster(World& world, const RankSpec& mine) {
  ClusterSpec one;
  one.ranks.push_back(mine);
  one.ranks[0].rank = 0;  // of a file of its own
  const std::string text = cluster_text(one, {});
  ClusterSpec cluster;
  for (int rank = 0; rank < world.size; ++rank) {
    const std::string theirs = share_from(world, rank, text);
    RankSpec spec =
        parse_cluster(theirs, "rank " + std::to_string(rank) + "'s rates").cluster.ranks[0];
    spec.rank = rank;
    cluster.ranks.push_back(std::move(spec));
  }
  return cluster;
}

void measure_disks(World& world, const std::string& model, RankSpec& mine) {
  if (model.empty()) return;
  DiskRates rates;
  together(world, [&] {
    if (mine.local_rank != 0) return;
    rates =
        measure_disk(model, disk_readers(mine.threads, mine.gpu.present()), mine.memory_free_bytes);
  });
  // The others of a host have its first rank's.
  const auto from = world.hosts[static_cast<size_t>(world.rank)];
  for (int rank = 0; rank < world.size; ++rank) {
    DiskRates theirs = rates;
    world.communicator->broadcast(std::as_writable_bytes(std::span(&theirs, 1)), rank);
    if (rank != from) continue;
    mine.disk_gb_per_s = theirs.disk_gb_per_s;
    mine.page_cache_gb_per_s = theirs.page_cache_gb_per_s;
  }
}

ClusterSpec measure_cluster(World& world, const cpu::Exec& exec, const GpuSource& gpus,
                            const RankSpec& facts, const std::string& model) {
  RankSpec mine = facts;
  std::optional<ReadBuffer> buffer;
  together(world, [&] { buffer.emplace(exec, past_caches_bytes(mine.memory_free_bytes)); });
  together(world, [&] { measure_rates(exec, *buffer, mine, {}); });
  const std::vector<QuantType> types = all_product_types();
  measure_cpus(world, exec, *buffer, {types, kSliceSeconds}, mine);
  buffer.reset();
  together(world, [&] { measure_gpu_rates(mine.gpu, gpus); });
  GpuBus bus;
  together(world, [&] {
    if (mine.gpu.present()) bus = gpus.bus(mine.memory_free_bytes);
  });
  mine.pin_gb_per_s = bus.pin_gb_per_s;
  mine.gpu.h2d_gb_per_s = bus.h2d_gb_per_s;
  mine.gpu.d2h_gb_per_s = bus.d2h_gb_per_s;
  measure_reads(world, exec, bus.load, mine);
  bus = {};  // gives its memory back before links are measured
  measure_disks(world, model, mine);
  const LinkSpec link = best_link(world);
  std::vector<PairSpec> pairs;
  if (world.size > 1) {
    together(world, [&] { pairs = probe_pairs(*world.communicator, mine.gpu, mine.host); });
  }
  ClusterSpec cluster = gather_cluster(world, mine);
  cluster.link = link;
  cluster.pairs = std::move(pairs);
  return cluster;
}

}  // namespace spillway

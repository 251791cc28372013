// See rank_rates.h.
#include "launch/rank_rates.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "kernels/core/error.h"
#include "launch/kept_rates.h"
#include "parallel/agreement.h"
#include "parallel/cluster_file.h"
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

// The best of a few: what is kept must not be what one busy moment made of it.
LinkSpec best_link(World& world) {
  constexpr int kRuns = 5;
  LinkSpec best = probe_link(*world.communicator);
  for (int run = 1; run < kRuns && world.size > 1; ++run) {
    const LinkSpec link = probe_link(*world.communicator);
    best.latency_us = std::min(best.latency_us, link.latency_us);
    best.gb_per_s = std::max(best.gb_per_s, link.gb_per_s);
  }
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

}  // namespace

JobRates settle_rates(World& world, const cpu::Exec& exec, const GpuSource& gpus,
                      const RankSpec& facts) {
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
    return rates;
  }
  // All measure before the link's probe, so that nobody waits there while another is still busy.
  measure_rates(exec, rates.mine, [&] { world.communicator->barrier(); });
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
    if (mine.local_rank == 0) rates = measure_disk(model);
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
  together(world, [&] { measure_rates(exec, mine); });
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

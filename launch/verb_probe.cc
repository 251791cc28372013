// spillway probe: what the machines of a job have and how fast they are, measured once and kept, so
// that later jobs start at once and plan alike. Alone, or under mpirun for all ranks.
#include <chrono>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "kernels/core/error.h"
#include "kernels/core/thread_pool.h"
#include "launch/bring_up.h"
#include "launch/cluster_report.h"
#include "launch/gpu_probe.h"
#include "launch/kept_rates.h"
#include "launch/rank_cores.h"
#include "launch/rank_rates.h"
#include "launch/supervise.h"
#include "launch/verbs.h"
#include "launch/version.h"
#include "parallel/agreement.h"
#include "parallel/probe.h"

namespace spillway {
namespace {

struct Probed {
  ClusterSpec cluster;
  std::string how;          // "measured in 4.1 s", or where the rates come from
  std::string made;         // when; on the front
  std::string fingerprint;  // of all ranks
};

GpuSpec gpu_of(World& world, const Options& options, const GpuSource& gpus) {
  GpuProbe found;
  agree(world, obstacle_of([&] {
          const PlanRequest request = plan_request(options);
          check_device_list(request.devices, world.size);
          found = probe_gpu(request.device_of(world.rank),
                            gpu_seat(world.hosts, request, world.rank), gpus);
        }));
  for (const std::string& warning : gather_texts(world, found.warning)) {
    if (world.front()) print_warning(warning);
  }
  return found.gpu;
}

RankSpec facts_of(const World& world, const cpu::Exec& exec, const GpuSpec& gpu) {
  RankSpec facts = probe_rank(exec, {world.rank, world.local_rank, world.local_size, false});
  facts.host = world.host;
  facts.gpu = gpu;
  return facts;
}

// What an earlier probe kept, on all ranks, with today's free memory.
std::optional<Probed> kept(World& world, const RankSpec& facts, const std::string& fingerprint) {
  std::string text;
  std::string how;
  std::string made;
  if (world.front()) {
    std::string warning;
    const auto found = find_kept_rates(kept_rates_folder(), fingerprint, world.size, warning);
    print_warning(warning);
    if (found) {
      text = cluster_text(found->file.cluster, {});
      how = kept_rates_text(*found) + "; --refresh measures again";
      made = found->file.origin.made;
    }
  }
  text = share_from(world, 0, text);
  if (text.empty()) return std::nullopt;
  const ClusterSpec rates = parse_cluster(text, "kept rates").cluster;
  Probed probed;
  probed.cluster =
      gather_cluster(world, with_rates(facts, rates.ranks[static_cast<size_t>(world.rank)]));
  probed.cluster.link = rates.link;
  probed.cluster.pairs = rates.pairs;
  probed.how = how;
  probed.made = made;
  return probed;
}

void keep(World& world, const Probed& probed) {
  if (!world.front()) return;
  const std::string folder = kept_rates_folder();
  if (folder.empty()) {
    print_warning("nothing is kept: neither XDG_CACHE_HOME nor HOME is set");
    return;
  }
  try {
    keep_rates(folder, probed.fingerprint, probed.cluster);
  } catch (const Error& error) {
    print_warning("the rates are not kept: " + std::string(error.what()));
  }
}

Probed probe(World& world, const Options& options) {
  const GpuSource gpus = cuda_gpus();
  const GpuSpec gpu = gpu_of(world, options, gpus);
  const int cores = settle_cores(world, gpu.numa_node);
  std::optional<ThreadPool> pool;
  agree(world, obstacle_of([&] { pool.emplace(options.threads > 0 ? options.threads : cores); }));
  const cpu::Exec exec{&*pool, cpu::best_isa()};
  const RankSpec facts = facts_of(world, exec, gpu);
  const std::string fingerprint = cluster_fingerprint(gather_texts(world, rank_fingerprint(facts)));
  std::optional<Probed> found;
  if (!options.refresh) found = kept(world, facts, fingerprint);
  if (found) {
    found->fingerprint = fingerprint;
    if (options.model.empty()) return *found;
    RankSpec& mine = found->cluster.ranks[static_cast<size_t>(world.rank)];
    measure_disks(world, options.model, mine);
    ClusterSpec with_disk = gather_cluster(world, mine);
    with_disk.link = found->cluster.link;
    with_disk.pairs = found->cluster.pairs;
    found->cluster = with_disk;
  } else {
    const auto begin = std::chrono::steady_clock::now();
    found = Probed{measure_cluster(world, exec, gpus, facts, options.model), "", now_text(),
                   fingerprint};
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    char how[64];
    std::snprintf(how, sizeof(how), "measured in %.1f s", took.count());
    found->how = how;
  }
  keep(world, *found);
  return *found;
}

void print(const Options& options, const Probed& probed) {
  if (options.json) {
    // Names are the machine's, and need not be UTF-8.
    constexpr auto kReplace = nlohmann::json::error_handler_t::replace;
    std::cout << cluster_json(probed.cluster).dump(1, ' ', false, kReplace) << "\n";
    return;
  }
  std::cout << cluster_report(probed.cluster) << probed.how << "\n";
  print_warning(busy_text(probed.cluster));
}

}  // namespace

int verb_probe(const Options& options) {
  World world = bring_up(launched_as().size);
  const Probed probed = probe(world, options);
  std::string error;
  if (world.front()) {
    print(options, probed);
    error = obstacle_of([&] {
      if (options.save.empty()) return;
      write_whole(options.save,
                  cluster_text(probed.cluster, {kProgram, probed.made, probed.fingerprint}));
      std::cerr << "written to " << options.save << ", for plan --cluster\n";
    });
  }
  agree(world, error);
  finish(world);
  return 0;
}

}  // namespace spillway

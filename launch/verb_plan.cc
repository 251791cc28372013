// spillway plan: the ledger and the table of a split, on any machine, before anything is allocated.
// The model is a file (its header is enough) or a shape and a type; the ranks are a cluster file's,
// or this machine's, as probed here, sharing it evenly.
#include <algorithm>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <system_error>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/core/thread_pool.h"
#include "launch/gpu_probe.h"
#include "launch/job_notes.h"
#include "launch/kept_rates.h"
#include "launch/plan_file.h"
#include "launch/plan_json.h"
#include "launch/plan_svg.h"
#include "launch/shipped_file.h"
#include "launch/verbs.h"
#include "parallel/cluster_file.h"
#include "parallel/cpu_clock.h"
#include "parallel/cpu_rates.h"
#include "parallel/explain.h"
#include "parallel/host_reads.h"
#include "parallel/near_word.h"
#include "parallel/planner.h"
#include "parallel/probe.h"
#include "runtime/io/gguf.h"
#include "runtime/io/spill_file.h"
#include "runtime/model/quant_mix.h"
#include "runtime/model/shape.h"
#include "runtime/model/spec.h"

namespace spillway {
namespace {

// So many ranks' threads at once, by the threads of this process; what one of the ranks gets.
HostRead all_read(const cpu::Exec& exec, int n_ranks, int64_t free_bytes) {
  constexpr double kSeconds = 0.05;
  if (n_ranks < 2) return {};
  ThreadPool pool(exec.pool->size() * n_ranks);
  const cpu::Exec all{&pool, exec.isa};
  ReadBuffer buffer(all, read_buffer_bytes(free_bytes));
  HostRead read = measure_together(buffer, pool.size(), kSeconds, {});
  read.gb_per_s /= n_ranks;
  return read;
}

// What a layer's ops reach on one rank's CPU alone, and, by this process, on all ranks' at once.
void measure_layers(const cpu::Exec& exec, int n_ranks, std::span<const QuantType> types,
                    RankSpec& spec) {
  constexpr double kSliceSeconds = 0.015;
  const auto measure = [&](const cpu::Exec& on, bool beside) {
    const ReadBuffer weights(on, past_caches_bytes(spec.memory_free_bytes));
    return CpuProbe(on, weights).measure(on.pool->size(), types, kSliceSeconds, beside, [] {});
  };
  spec.cpu_alone = measure(exec, false);
  if (n_ranks < 2) return;
  ThreadPool pool(exec.pool->size() * n_ranks);
  CpuRates& all = spec.cpu_together;
  all = measure({&pool, exec.isa}, true);
  for (ProductRate& product : all.products) {
    product.row_gb_per_s /= n_ranks;
    product.gop_per_s /= n_ranks;
  }
  all.attend_gb_per_s /= n_ranks;
  all.attend_gop_per_s /= n_ranks;
  all.value_ns *= n_ranks;
}

// What `spillway probe` kept of as many ranks on this host; else what is measured now.
// note: where the rates are from, to be said once there is a plan.
ClusterSpec cluster_here(const Options& options, int n_ranks, std::span<const QuantType> types,
                         std::string& note) {
  ThreadPool pool(options.threads > 0 ? options.threads : cores_of_rank(n_ranks));
  const cpu::Exec exec{&pool, cpu::best_isa()};
  ClusterSpec cluster = assumed_cluster(n_ranks);
  for (RankSpec& spec : cluster.ranks) {
    spec = probe_rank(exec, {spec.rank, spec.rank, n_ranks, false});
  }
  const PlanRequest request = plan_request(options);
  std::string warning = find_gpus(cluster, request, cuda_gpus(), false);
  std::vector<std::string> fingerprints;
  for (const RankSpec& spec : cluster.ranks) fingerprints.push_back(rank_fingerprint(spec));
  std::string stale;
  const auto kept =
      find_kept_rates(kept_rates_folder(), cluster_fingerprint(fingerprints), n_ranks, stale);
  print_warning(stale);
  if (kept) {
    note = kept_rates_text(*kept);
      print_warning(busy_text(kept->file.cluster));
    for (RankSpec& spec : cluster.ranks) {
      spec = with_rates(spec, kept->file.cluster.ranks[static_cast<size_t>(spec.rank)]);
    }
    cluster.link = kept->file.cluster.link;
    cluster.pairs = kept->file.cluster.pairs;
  } else {
    RankSpec measured = cluster.ranks[0];
    measure_rates(exec, measured);
    measured.together = all_read(exec, n_ranks, measured.memory_free_bytes);
    if (!measured.gpu.present()) measure_layers(exec, n_ranks, types, measured);
    for (RankSpec& spec : cluster.ranks) spec = with_rates(spec, measured);
    note = no_kept_rates_text();
    warning = find_gpus(cluster, request, cuda_gpus(), true);
  }
  print_warning(warning);
  return cluster;
}

// Ranks that may not compute on a GPU have none, as where they run.
ClusterSpec cluster_of_file(const Options& options) {
  const std::string path = shipped_file("clusters", options.cluster, "cluster");
  ClusterSpec cluster = read_cluster_file(path).cluster;
  print_warning(busy_text(cluster));
  const bool named = options.ranks > 0 || !options.split.empty() || options.tp * options.pp > 0 ||
                     !options.devices.empty();
  if (named) cluster = first_ranks(cluster, ranks_named(options), path);
  const PlanRequest request = plan_request(options);
  check_device_list(request.devices, cluster.size());
  for (RankSpec& rank : cluster.ranks) {
    if (request.device_of(rank.rank) == DeviceChoice::kCpu) rank.gpu = {};
    if (options.threads > 0) rank.threads = options.threads;
  }
  return cluster;
}

const QuantMix& mix_named(const std::string& name) {
  if (const QuantMix* mix = find_quant_mix(name)) return *mix;
  std::vector<std::string> names;
  for (const QuantMix& mix : quant_mixes()) names.emplace_back(mix.name);
  const std::string near = near_word(name, names);
  std::string todo = "one of";
  for (const std::string& one : names) todo += " " + one;
  throw Error("there is no file type \"" + name + "\"", "",
              near.empty() ? todo : "did you mean " + near + "?");
}

// "llama-70b" alone is most likely meant as a shape.
void require_type(const std::string& text) {
  try {
    (void)shipped_file("models", text, "model shape");
  } catch (const Error&) {
    return;  // then it is the name of a file, which says by itself that it cannot be opened
  }
  throw Error("\"" + text + "\" is a model shape and needs a type", "",
              "as in -m " + text + ":Q4_K_M");
}

ModelSpec model_of(const std::string& text) {
  std::error_code ignored;
  const size_t colon = text.rfind(':');
  const bool shape = colon != std::string::npos && !std::filesystem::exists(text, ignored);
  if (shape && text.substr(0, colon).ends_with(".gguf")) {
    throw Error("a GGUF file has its own types", text.substr(0, colon),
                "leave the \":" + text.substr(colon + 1) + "\" out; quantize writes another type");
  }
  if (shape) {
    const QuantMix& mix = mix_named(text.substr(colon + 1));
    return shape_spec(read_shape_file(shipped_file("models", text.substr(0, colon), "model shape")),
                      mix);
  }
  if (!std::filesystem::exists(text, ignored)) require_type(text);
  const Gguf gguf = Gguf::open(text, GgufNeed::kHeader);
  if (!gguf.complete()) print_warning(text + " ends before its weights do: its header is planned");
  return read_model_spec(gguf);
}

void print_notes(const Options& options, const Plan& plan, const ModelSpec& model,
                 const ClusterSpec& cluster) {
  print_warning(comm_note(plan, options.comm));
  const PlanRequest request = plan_request(options);
  print_warning(gpu_memory_note(cluster, request));
  for (const std::string& warning : unused_gpus(plan, model, cluster, request)) {
    print_warning(warning);
  }
  // What follows is of this machine.
  if (!options.cluster.empty()) return;
  const int n = cluster.size();
  print_warning(threads_note(options.threads, cores_of_rank(n), n));
  std::string folder;
  for (int rank = 0; rank < n && folder.empty(); ++rank) {
    folder =
        spill_folder_note(plan, rank, options.spill_folder, lies_in_memory(options.spill_folder));
  }
  print_warning(folder);
}

}  // namespace

int verb_plan(const Options& options) {
  const ModelSpec model = model_of(options.model);
  std::string note;
  const ClusterSpec cluster = options.cluster.empty() ? cluster_here(options, ranks_named(options),
                                                                     matrix_types(model), note)
                                                      : cluster_of_file(options);
  const PlanRequest request = plan_request(options);
  const Planned planned = plan_and_others(model, cluster, request);
  const Plan& plan = planned.plan;
  if (!note.empty()) std::cerr << note << "\n";
  if (!options.svg.empty()) write_plan_svg(options.svg, plan, model, cluster);
  print_notes(options, plan, model, cluster);
  if (options.json) {
    // The model's name is the file's, and need not be UTF-8.
    constexpr auto kReplace = nlohmann::json::error_handler_t::replace;
    auto json = plan_json(plan, model, cluster);
    json["explanation"] = explanation_json(explain(planned, model, cluster, request));
    std::cout << json.dump(1, ' ', false, kReplace) << "\n";
  } else if (options.toml) {
    for (const std::string& cut : cut_budgets(plan)) print_warning(cut);
    std::cout << plan_toml(plan);
  } else {
    std::cout << plan_table(plan, model, cluster)
              << explanation_text(explain(planned, model, cluster, request), plan);
  }
  return 0;
}

}  // namespace spillway

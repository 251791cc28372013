// spillway plan: the ledger and the table of a split, on any machine, before anything is allocated.
// The ranks are this machine's, as probed here, sharing it evenly.
#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "kernels/core/thread_pool.h"
#include "launch/gpu_probe.h"
#include "launch/plan_file.h"
#include "launch/plan_json.h"
#include "launch/plan_svg.h"
#include "launch/verbs.h"
#include "parallel/explain.h"
#include "parallel/planner.h"
#include "parallel/probe.h"
#include "runtime/io/gguf.h"
#include "runtime/model/spec.h"

namespace spillway {
namespace {

ClusterSpec cluster_here(const Options& options, int n_ranks) {
  const int share = std::max(1, usable_cores() / n_ranks);
  ThreadPool pool(options.threads > 0 ? options.threads : share);
  const cpu::Exec exec{&pool, cpu::best_isa()};
  const RankSpec probed = probe_rank(exec, {0, 0, n_ranks, true});
  ClusterSpec cluster = assumed_cluster(n_ranks);
  for (int rank = 0; rank < n_ranks; ++rank) {
    RankSpec& spec = cluster.ranks[static_cast<size_t>(rank)];
    spec = probed;
    spec.rank = rank;
    spec.local_rank = rank;
    spec.local_size = n_ranks;
  }
  print_warning(find_gpus(cluster, plan_request(options), cuda_gpus()));
  return cluster;
}

}  // namespace

int verb_plan(const Options& options) {
  const Gguf gguf = Gguf::open(options.model);
  const ModelSpec model = read_model_spec(gguf);
  const ClusterSpec cluster = cluster_here(options, ranks_named(options));
  const PlanRequest request = plan_request(options);
  const Planned planned = plan_and_others(model, cluster, request);
  const Plan& plan = planned.plan;
  if (!options.svg.empty()) write_plan_svg(options.svg, plan, model, cluster);
  for (const std::string& warning : unused_gpus(plan, model, cluster)) print_warning(warning);
  if (options.json) {
    // The model's name is the file's, and need not be UTF-8.
    constexpr auto kReplace = nlohmann::json::error_handler_t::replace;
    auto json = plan_json(plan, model, cluster);
    json["explanation"] = explanation_json(explain(planned, model, cluster, request));
    std::cout << json.dump(1, ' ', false, kReplace) << "\n";
  } else if (options.toml) {
    std::cout << plan_toml(plan);
  } else {
    std::cout << plan_table(plan, model, cluster)
              << explanation_text(explain(planned, model, cluster, request), plan);
  }
  return 0;
}

}  // namespace spillway

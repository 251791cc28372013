// spillway sweep: predicts every legal configuration of the ranks that there are, runs the fastest
// and some controls in rounds of the same job, and prints predicted and measured speed and memory
// side by side.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <span>
#include <utility>

#include "kernels/core/error.h"
#include "kernels/core/seconds.h"
#include "launch/job.h"
#include "launch/speed.h"
#include "launch/supervise.h"
#include "launch/sweep_cases.h"
#include "launch/sweep_report.h"
#include "launch/sweep_rounds.h"
#include "launch/verbs.h"
#include "parallel/cost.h"
#include "parallel/size_text.h"
#include "runtime/engine/follower.h"

#ifdef SPILLWAY_WITH_CUDA
#include "kernels/cuda/nvml.h"
#endif

namespace spillway {
namespace {

int64_t used_bytes(const GpuSpec& gpu) {
#ifdef SPILLWAY_WITH_CUDA
  if (gpu.present()) return cuda::used_device_bytes(gpu.uuid).value_or(0);
#endif
  (void)gpu;
  return 0;
}

// Tokens that a test needs in the cache.
int64_t tokens_of(const Options& o) {
  return std::max<int64_t>(o.bench_prompt, o.bench_depth + o.bench_new);
}

Measured with_more(const Measured& of, const Measured& more) {
  std::vector<double> runs = of.runs;
  runs.insert(runs.end(), more.runs.begin(), more.runs.end());
  return measured_of(std::move(runs));
}

class Sweep {
 public:
  Sweep(const Options& options, Job& job) : options_(options), job_(job) {}

  void run() {
    const SweepCases all = enumerate();
    const std::vector<SweepCase> chosen =
        offload() ? all.cases
                  : choose_cases(all.cases, options_.sweep.best, options_.sweep.controls);
    const bool front = job_.world().front();
    if (front && !options_.quiet) {
      std::fprintf(
          stderr, "%zu of %s fit, %zu will run\n", all.cases.size(),
          count_text(static_cast<int64_t>(all.cases.size() + all.refused.size()), "configuration")
              .c_str(),
          chosen.size());
      for (const std::string& why : all.refused) std::fprintf(stderr, "  %s\n", why.c_str());
    }
    if (chosen.empty()) {
      throw Error("no configuration fits", "sweep",
                  all.refused.empty() ? "" : "the first reason: " + all.refused.front());
    }
    for (const SweepCase& one : chosen) rows_.push_back(predicted(one));
    SweepRounds rounds(options_.repetitions, options_.sweep.rounds);
    while (rounds.more()) run_round(chosen, rounds);
    if (front) report();
  }

 private:
  bool offload() const { return options_.sweep.offload_steps > 0; }

  SweepCases enumerate() const {
    PlanRequest base = plan_request(options_);
    base.context = options_.context > 0 ? options_.context : tokens_of(options_);
    const int n = job_.cluster().size();
    if (offload()) {
      const auto& ranks = job_.cluster().ranks;
      if (std::none_of(ranks.begin(), ranks.end(),
                       [](const RankSpec& rank) { return rank.gpu.present(); })) {
        throw SharedError("--offload compares shares of the layers on a GPU, and no rank has one",
                          "", "leave --offload out to compare splits of CPUs");
      }
      return offload_cases(job_.model(), job_.cluster(), base, options_.sweep.offload_steps);
    }
    SweepRequest request;
    request.base = base;
    request.base.tp = 0;
    request.base.pp = 0;
    request.splits = all_splits(job_.model(), n, options_.sweep.uneven);
    if (!options_.split.empty()) request.splits = {options_.split};
    request.kv_types.clear();
    for (uint32_t t = 0; t < kKvTypes; ++t) {
      const auto type = static_cast<KvType>(t);
      const auto& named = options_.sweep.kv_types;
      if (std::find(named.begin(), named.end(), kv_type_name(type)) != named.end()) {
        request.kv_types.push_back(type);
      }
    }
    request.spilled = options_.sweep.spilled;
    return sweep_cases(job_.model(), job_.cluster(), request);
  }

  SweepRow predicted(const SweepCase& one) const {
    SweepRow row;
    row.name = one.name;
    row.control = one.control;
    row.on_gpu = one.on_gpu;
    // For the tests' own length, not the usual one.
    const int64_t context = options_.bench_depth + options_.bench_new / 2;
    const Prediction p = predict(one.plan, job_.model(), job_.cluster(), context);
    row.predicted_decode = p.decode_tok_per_s;
    row.predicted_prefill = options_.bench_prompt > 0 ? p.prefill_tok_per_s : 0;
    return row;
  }

  struct Took {
    double load_s = 0, measure_s = 0;
  };

  // Collective.
  void run_round(const std::vector<SweepCase>& chosen, SweepRounds& rounds) {
    Took took;
    for (size_t i = 0; i < chosen.size(); ++i) {
      if (!rows_[i].failed.empty()) continue;  // on all ranks
      measure(chosen[i], rounds.runs_now(), rows_[i], took);
      if (!job_.world().front() || options_.quiet) continue;
      const SweepRow& row = rows_[i];
      std::fprintf(stderr, "round %d, %s: decode %.2f tok/s, predicted %.2f\n", rounds.round() + 1,
                   row.name.c_str(), row.decode.runs.empty() ? 0 : row.decode.runs.back(),
                   row.predicted_decode);
    }
    // All go by the front's clock.
    job_.world().communicator->broadcast(std::as_writable_bytes(std::span(&took, 1)), 0);
    rounds.finish(took.load_s, took.measure_s);
  }

  // So many runs more. Collective; the row's figures count on the front.
  void measure(const SweepCase& one, int runs, SweepRow& row, Took& took) {
    // The first rank on a GPU of this process' own: the front's, where the driver can be asked.
    const RankPart& part =
        one.plan.parts[static_cast<size_t>(job_.world().rank) < one.plan.parts.size()
                           ? static_cast<size_t>(job_.world().rank)
                           : 0];
    if (part.gpu) row.ledger_gpu_bytes = one.plan.rank_bytes(part.rank, "", "gpu");
    const GpuSpec& gpu = job_.cluster().ranks[static_cast<size_t>(part.rank)].gpu;
    std::unique_ptr<House> house;
    const auto begin = std::chrono::steady_clock::now();
    try {
      house = job_.build(one.plan, false);
    } catch (const Error& error) {
      row.failed = error.what();
      return;
    }
    const double load_s = seconds_since(begin);
    took.load_s += load_s;
    job_.set_state("running");
    if (!job_.world().front()) {
      follow(house->plan, house->pipeline.get(), house->mesh, job_.watchdog(), job_.metrics());
      return;
    }
    Options now = options_;
    now.repetitions = runs;
    const Speed speed = measure_speed(now, job_, *house);
    took.measure_s += seconds_since(begin) - load_s;
    row.decode = with_more(row.decode, speed.decode);
    row.prefill = with_more(row.prefill, speed.prefill);
    if (part.gpu) {
      const int64_t used = used_bytes(gpu) - job_.gpu_bytes_before();
      if (used > 0) row.measured_gpu_bytes = std::max(row.measured_gpu_bytes, used);
    }
  }

  void write_file(const std::string& path, const std::string& text) const {
    std::ofstream file(path, std::ios::binary);
    file << text;
    file.close();
    if (!file) throw Error("cannot write the file", path, "check the folder and its disk");
  }

  void report() const {
    if (options_.json) {
      std::cout << sweep_json(rows_).dump(1, ' ', false, nlohmann::json::error_handler_t::replace)
                << "\n";
    } else {
      std::fputs(sweep_table(rows_).c_str(), stdout);
    }
    if (!options_.sweep.csv_file.empty()) write_file(options_.sweep.csv_file, sweep_csv(rows_));
    if (!options_.sweep.svg_file.empty()) {
      write_file(options_.sweep.svg_file, sweep_svg(rows_, job_.model().name, offload()));
    }
  }

  const Options& options_;
  Job& job_;
  std::vector<SweepRow> rows_;  // by chosen case; figures on the front only
};

// Before an hour of measuring: whether what comes out can be written. On the front.
void check_output(const std::string& flag, const std::string& path) {
  if (path.empty()) return;
  std::error_code none;
  const bool there = std::filesystem::exists(path, none);
  const auto written = there ? path : std::filesystem::absolute(path).parent_path().string();
  if ((there && std::filesystem::is_directory(path, none)) || access(written.c_str(), W_OK) != 0) {
    throw Error(flag + ": no file can be written there", path, "check the folder and its rights");
  }
}

}  // namespace

int verb_sweep(const Options& options, WorkerNote& note) {
  if (launched_as().rank == 0) {
    check_output("--csv", options.sweep.csv_file);
    check_output("--svg", options.sweep.svg_file);
  }
  Options sized = options;
  if (sized.context == 0) sized.context = tokens_of(options);
  if (sized.context < tokens_of(options)) {
    throw Error("-c " + std::to_string(sized.context) + " is less than the " +
                count_text(tokens_of(options), "token") + " of the tests");
  }
  return run_job(sized, note, [&](Job& job) {
    Sweep(sized, job).run();
    job.leave(nullptr);
    return 0;
  });
}

}  // namespace spillway

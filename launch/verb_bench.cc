// spillway bench: tokens per second of prefill (-p tokens at once) and decode (-n tokens, one by
// one, after --depth tokens in each of --sequences caches), median of repetitions with the spread,
// beside what the plan predicted.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <random>
#include <vector>

#include "kernels/core/error.h"
#include "launch/forward_loop.h"
#include "launch/job.h"
#include "launch/parallel_loop.h"
#include "launch/plan_json.h"
#include "launch/profile.h"
#include "launch/verbs.h"
#include "parallel/cost.h"
#include "runtime/engine/follower.h"

namespace spillway {
namespace {

struct Measured {
  double median = 0, least = 0, most = 0;  // tokens per second
};

Measured summary(std::vector<double> rates) {
  std::sort(rates.begin(), rates.end());
  const size_t n = rates.size();
  const double median = n % 2 == 1 ? rates[n / 2] : 0.5 * (rates[n / 2 - 1] + rates[n / 2]);
  return {median, rates.front(), rates.back()};
}

// One uncounted run, then `repetitions`; the clock leaves `before` out.
Measured measure(int repetitions, int64_t tokens, const std::function<void()>& before,
                 const std::function<void()>& body) {
  std::vector<double> rates;
  for (int i = 0; i <= repetitions; ++i) {
    before();
    const auto begin = std::chrono::steady_clock::now();
    body();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    if (i > 0) rates.push_back(static_cast<double>(tokens) / took.count());
  }
  return summary(std::move(rates));
}

struct BenchResult {
  Measured prefill, decode;
  double weight_gb_per_token = 0;  // read by all ranks together
  double host_us = 0;              // of a decode step, beside waiting for the GPU; 0: on a CPU
};

BenchResult run_bench(const Options& options, Job& job, House& house) {
  Engine engine(house.plan, job.model(), *house.pipeline, house.mesh, job.watchdog(),
                job.metrics());
  ForwardLoop loop(house.plan, engine);
  std::mt19937 random(1);
  std::vector<int32_t> tokens(static_cast<size_t>(options.bench_prompt));
  for (int32_t& token : tokens) {
    token = static_cast<int32_t>(random() % static_cast<uint32_t>(job.model().vocab_size));
  }
  BenchResult result;
  if (options.bench_prompt > 0) {
    result.prefill = measure(
        options.repetitions, options.bench_prompt, [&] { loop.restart(); },
        [&] { loop.feed(tokens, 1); });
  }
  if (options.bench_new > 0) {
    ParallelLoop decode(house.plan, engine, job.model().vocab_size, options.bench_sequences,
                        options.bench_depth + options.bench_new);
    std::chrono::nanoseconds host{0};
    result.decode = measure(
        options.repetitions, options.bench_new * options.bench_sequences,
        [&] { decode.restart(options.bench_depth); },
        [&] {
          const int64_t waited = house.pipeline->gpu_waited_ns();
          const auto begin = std::chrono::steady_clock::now();
          for (int64_t i = 0; i < options.bench_new; ++i) decode.step();
          decode.finish();
          host = std::chrono::steady_clock::now() - begin -
                 std::chrono::nanoseconds(house.pipeline->gpu_waited_ns() - waited);
        });
    if (house.plan.parts[0].gpu) {
      result.host_us =
          1e-3 * static_cast<double>(host.count()) / static_cast<double>(options.bench_new);
    }
  }
  for (int rank = 0; rank < house.plan.n_ranks(); ++rank) {
    result.weight_gb_per_token +=
        1e-9 * static_cast<double>(weight_bytes_per_token(house.plan, job.model(), rank));
  }
  engine.stop();
  return result;
}

// GB/s of weights in decode: a step reads them once for all sequences.
double weight_rate(const Options& options, const BenchResult& r) {
  return r.decode.median * r.weight_gb_per_token / static_cast<double>(options.bench_sequences);
}

nlohmann::ordered_json rate_json(const Measured& m, double predicted) {
  return {{"median", m.median}, {"least", m.least}, {"most", m.most}, {"predicted", predicted}};
}

void print_json(const Options& options, Job& job, const House& house, const BenchResult& r,
                const Profile& profile) {
  nlohmann::ordered_json out;
  out["plan"] = plan_json(house.plan, job.model(), job.cluster());
  out["plan"].erase("ledger");
  out["prompt_tokens"] = options.bench_prompt;
  out["new_tokens"] = options.bench_new;
  out["repetitions"] = options.repetitions;
  const Prediction& p = house.plan.prediction;
  if (options.bench_prompt > 0) {
    out["prefill_tok_per_s"] = rate_json(r.prefill, p.prefill_tok_per_s);
  }
  if (options.bench_new > 0) {
    out["decode_tok_per_s"] = rate_json(r.decode, p.decode_tok_per_s);
    out["depth"] = options.bench_depth;
    out["sequences"] = options.bench_sequences;
    out["decode_gb_per_s"] = weight_rate(options, r);
    if (r.host_us > 0) out["decode_host_us"] = r.host_us;
  }
  if (options.profile) out["profile"] = profile_json(profile);
  out["resident_bytes"] = resident_bytes();
  out["planned_bytes"] = house.plan.rank_bytes(0);
  // The model's name is the file's, and need not be UTF-8.
  std::cout << out.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
}

void print_row(const char* name, int64_t tokens, const Measured& m, double predicted,
               double gb_per_s) {
  char gb[32] = "-";
  if (gb_per_s > 0) std::snprintf(gb, sizeof(gb), "%.2f", gb_per_s);
  std::printf("%-8s %7lld %11.1f %11.1f %11.1f %9s %11.1f\n", name, static_cast<long long>(tokens),
              m.median, m.least, m.most, gb, predicted);
}

void print_table(const Options& options, Job& job, const House& house, const BenchResult& r) {
  const Prediction& p = house.plan.prediction;
  std::printf("%s, %s\n\n%-8s %7s %11s %11s %11s %9s %11s\n", job.model().name.c_str(),
              plan_title(house.plan).c_str(), "test", "tokens", "tok/s", "least", "most", "GB/s",
              "predicted");
  if (options.bench_prompt > 0) {
    print_row("prefill", options.bench_prompt, r.prefill, p.prefill_tok_per_s, 0);
  }
  if (options.bench_new > 0) {
    print_row("decode", options.bench_new, r.decode, p.decode_tok_per_s, weight_rate(options, r));
  }
  if (r.host_us > 0) std::printf("\nhost time of a decode step: %.1f us\n", r.host_us);
  std::printf("\nmemory of rank 0: %s resident, %s planned\n", size_text(resident_bytes()).c_str(),
              size_text(house.plan.rank_bytes(0)).c_str());
}

double step_ms(double tokens_per_step, const Measured& m) {
  return m.median > 0 ? 1e3 * tokens_per_step / m.median : 0;
}

// Every rank's part of the test; the front prints.
void bench(const Options& options, Job& job, House& house) {
  const bool front = job.world().front();
  BenchResult result;
  if (front) {
    result = run_bench(options, job, house);
    if (!options.json) print_table(options, job, house, result);
    std::fflush(stdout);
  } else {
    follow(house.plan, house.pipeline.get(), house.mesh, job.watchdog(), job.metrics());
  }
  Profile profile;
  if (options.profile) {
    const int64_t chunks =
        std::max<int64_t>(1, div_up(options.bench_prompt, house.plan.limits.max_rows));
    profile = profile_steps(
        options, job, house, step_ms(static_cast<double>(options.bench_sequences), result.decode),
        step_ms(static_cast<double>(options.bench_prompt) / static_cast<double>(chunks),
                result.prefill));
  }
  if (!front) return;
  if (options.json) {
    print_json(options, job, house, result, profile);
  } else if (options.profile) {
    std::fputs(profile_text(profile).c_str(), stdout);
  }
}

}  // namespace

int verb_bench(const Options& options, WorkerNote& note) {
  Options sized = options;
  const int64_t least = std::max(
      options.bench_prompt, options.bench_sequences * (options.bench_depth + options.bench_new));
  if (sized.context == 0) sized.context = std::max<int64_t>(1, least);
  if (sized.context < least) {
    throw Error("-c " + std::to_string(sized.context) + " is less than the " +
                std::to_string(least) + " tokens of the tests");
  }
  Job job(sized, note);
  std::unique_ptr<House> house = job.build(job.plan(), true);
  job.set_state("running");
  try {
    bench(options, job, *house);
  } catch (const Error& e) {
    job.fail(e);
  }
  job.leave(std::move(house));
  return 0;
}

}  // namespace spillway

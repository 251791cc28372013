// spillway bench: tokens per second of prefill (-p tokens at once) and decode (-n tokens, one by
// one, after --depth tokens in each of --sequences caches), median of repetitions with the spread,
// beside what the plan predicted.
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <vector>

#include "kernels/core/error.h"
#include "launch/job.h"
#include "launch/plan_json.h"
#include "launch/profile.h"
#include "launch/speed.h"
#include "launch/verbs.h"
#include "parallel/cost.h"
#include "parallel/size_text.h"
#include "runtime/engine/follower.h"

namespace spillway {
namespace {

// GB/s of weights in decode: a step reads them once for all sequences.
double weight_rate(const Options& options, const Speed& r) {
  return r.decode.median * r.weight_gb_per_token / static_cast<double>(options.bench_sequences);
}

nlohmann::ordered_json rate_json(const Measured& m, double predicted) {
  return {{"median", m.median}, {"least", m.least}, {"most", m.most}, {"predicted", predicted}};
}

// Of rank 0, without what lies on the disk, which is not resident.
int64_t planned_memory(const Plan& plan) {
  return plan.rank_bytes(0) - plan.rank_bytes(0, "", "disk");
}

// For the tests' own length, as sweep predicts, and not the usual one.
Prediction predicted(const Options& options, const Job& job, const House& house) {
  const int64_t context = options.bench_depth + options.bench_new / 2;
  return predict(house.plan, job.model(), job.cluster(), context);
}

void print_json(const Options& options, Job& job, const House& house, const Speed& r,
                const Profile& profile) {
  nlohmann::ordered_json out;
  out["plan"] = plan_json(house.plan, job.model(), job.cluster());
  out["plan"].erase("ledger");
  out["prompt_tokens"] = options.bench_prompt;
  out["new_tokens"] = options.bench_new;
  out["repetitions"] = options.repetitions;
  const Prediction p = predicted(options, job, house);
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
  out["resident_bytes"] = job.resident_bytes();
  out["planned_bytes"] = planned_memory(house.plan);
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

void print_table(const Options& options, Job& job, const House& house, const Speed& r) {
  const Prediction p = predicted(options, job, house);
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
  std::printf("\nmemory of rank 0: %s resident, %s planned\n",
              size_text(job.resident_bytes()).c_str(),
              size_text(planned_memory(house.plan)).c_str());
}

double step_ms(double tokens_per_step, const Measured& m) {
  return m.median > 0 ? 1e3 * tokens_per_step / m.median : 0;
}

// Every rank's part of the test; the front prints.
void bench(const Options& options, Job& job, House& house) {
  const bool front = job.world().front();
  Speed result;
  if (front) {
    result = measure_speed(options, job, house);
    if (!options.json) {
      print_table(options, job, house, result);
      if (!options.profile && options.bench_sequences == 1 && options.bench_new > 0) {
        const double said = predicted(options, job, house).decode_tok_per_s;
        std::fputs(far_off_text(result.decode.median, said).c_str(), stdout);
      }
    }
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
                count_text(least, "token") + " of the tests");
  }
  return run_job(sized, note, [&](Job& job) {
    std::unique_ptr<House> house = job.build(job.plan(), true);
    job.set_state("running");
    bench(options, job, *house);
    job.leave(std::move(house));
    return 0;
  });
}

}  // namespace spillway

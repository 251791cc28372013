// See speed.h.
#include "launch/speed.h"

#include <chrono>
#include <functional>
#include <random>
#include <vector>

#include "launch/forward_loop.h"
#include "launch/parallel_loop.h"
#include "parallel/cost.h"

namespace spillway {
namespace {

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
  return measured_of(std::move(rates));
}

}  // namespace

Speed measure_speed(const Options& options, Job& job, House& house) {
  Engine engine(house.plan, job.model(), *house.pipeline, house.mesh, job.watchdog(),
                job.metrics());
  ForwardLoop loop(house.plan, engine);
  std::mt19937 random(1);
  std::vector<int32_t> tokens(static_cast<size_t>(options.bench_prompt));
  for (int32_t& token : tokens) {
    token = static_cast<int32_t>(random() % static_cast<uint32_t>(job.model().vocab_size));
  }
  Speed result;
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

}  // namespace spillway

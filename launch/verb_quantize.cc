// spillway quantize: a model file in another type. One process, no MPI; what every tensor becomes
// is runtime/model/quant_mix.h's to say, this file talks with the person.
#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <optional>
#include <string>
#include <thread>

#include "kernels/core/error.h"
#include "kernels/cpu/quantize.h"
#include "launch/shutdown.h"
#include "launch/terminal.h"
#include "launch/verbs.h"
#include "parallel/size_text.h"
#include "runtime/io/gguf_cursor.h"
#include "runtime/model/quantize_file.h"

namespace spillway {
namespace {

const QuantMix& require_mix(const std::string& name) {
  const QuantMix* mix = find_quant_mix(name);
  if (mix != nullptr) return *mix;
  std::string list;
  for (const QuantMix& known : quant_mixes()) append_item(list, ", ", known.name);
  throw Error("there is no type \"" + name + "\"", "",
              "types are " + list + "; spillway quantize --help says how large they are");
}

std::optional<QuantType> require_type(const char* flag, const std::string& name) {
  if (name.empty()) return std::nullopt;
  const std::optional<QuantType> type = quant_type_from_name(name);
  if (type && cpu::can_quantize(*type)) return type;
  throw Error(std::string(flag) + ": there is no type \"" + name + "\" to write", "",
              "e.g. Q8_0, Q6_K, Q5_K, Q4_K, F16");
}

double bits_per_weight(int64_t bytes, const QuantizePlan& plan) {
  return 8.0 * static_cast<double>(bytes) /
         static_cast<double>(std::max<int64_t>(1, plan.elements));
}

void print_table(const Gguf& source, const QuantizePlan& plan) {
  std::printf("%-44s %-8s %-8s %14s %14s\n", "tensor", "from", "to", "bytes", "new bytes");
  for (size_t i = 0; i < plan.tensors.size(); ++i) {
    const GgufTensor& tensor = source.tensors()[i];
    const GgufTensorPlan& planned = plan.tensors[i];
    std::printf("%-44s %-8s %-8s %14lld %14lld\n", one_line(tensor.name, 120).c_str(),
                quant_info(tensor.type).name, quant_info(planned.type).name,
                static_cast<long long>(tensor.bytes), static_cast<long long>(planned.bytes()));
  }
}

// Signals wait, blocked, until the run looks for them between two slices: a few milliseconds.
void stop_when_asked(const std::string& path) {
  sigset_t watched;
  sigemptyset(&watched);
  sigaddset(&watched, SIGINT);
  sigaddset(&watched, SIGTERM);
  const timespec now{0, 0};
  const int got = sigtimedwait(&watched, nullptr, &now);
  if (got <= 0) return;
  throw Error(std::string("stopped by ") + (got == SIGINT ? "SIGINT" : "SIGTERM"), path,
              "nothing was left behind; run it again");
}

}  // namespace

int verb_quantize(const Options& options) {
  const QuantizeOptions& flags = options.quantize;
  const QuantMix& mix = require_mix(flags.type);
  const QuantMixOptions choices{flags.pure, require_type("--output-tensor-type", flags.output_type),
                                require_type("--token-embedding-type", flags.embedding_type)};
  const Gguf source = Gguf::open(flags.input);
  const QuantizePlan plan = plan_quantize(source, mix, choices);
  if (!plan.quantised_twice.empty()) {
    std::fprintf(stderr,
                 "spillway: warning: %s of %s %s quantised already (%s ...): what that "
                 "lost stays lost, better start from F16 or BF16\n",
                 count_text(static_cast<int64_t>(plan.quantised_twice.size()), "tensor").c_str(),
                 flags.input.c_str(), plan.quantised_twice.size() == 1 ? "is" : "are",
                 quote_name(plan.quantised_twice.front()).c_str());
  }
  if (flags.dry_run) {
    print_table(source, plan);
  } else {
    check_target(source, plan, flags.output, flags.force);
  }
  const auto begin = std::chrono::steady_clock::now();
  if (!flags.dry_run) {
    block_signals();
    // A limit on the file's size is an Error of the write, not a signal's silent end.
    std::signal(SIGXFSZ, SIG_IGN);
    const int cores = static_cast<int>(std::thread::hardware_concurrency());
    ThreadPool pool(options.threads > 0 ? options.threads : std::max(1, cores));
    ProgressBar progress(std::string("quantising to ") + mix.name, !options.quiet);
    quantize_file({&pool, cpu::best_isa()}, source, plan, flags.output, flags.force,
                  [&](int64_t done, int64_t total) {
                    stop_when_asked(flags.output);
                    progress.update(done, total);
                  });
  }
  if (options.quiet) return 0;
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  std::printf("%s: %s (%.2f bits a weight) from %s (%.2f), %s", mix.name,
              size_text(plan.file_bytes).c_str(), bits_per_weight(plan.tensor_bytes, plan),
              size_text(source.file_bytes()).c_str(), bits_per_weight(plan.source_bytes, plan),
              flags.dry_run ? "nothing written\n" : "");
  if (!flags.dry_run) std::printf("%.1f s\n", seconds);
  return 0;
}

}  // namespace spillway

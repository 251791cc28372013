// spillway verify: does every split give the same answer? The reference is one rank alone, with all
// weights in its device's memory whatever --place says: three prompts, greedy, whole rows of logits
// kept. Every split then reads the same tokens; compared are each row's logits, the KL divergence,
// and how long the greedy text agrees. The first split with more than one rank runs again with the
// prompt in small chunks. On CPUs all bits must be equal. A GPU repeats its own bits, but rounds as
// its split goes (docs/numerics.md): there the same split runs once more and must give equal bits,
// and the KL divergence is bounded. Without mpirun it starts mpirun itself.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "launch/forward_loop.h"
#include "launch/job.h"
#include "launch/split_difference.h"
#include "launch/verbs.h"
#include "parallel/planner.h"
#include "parallel/size_text.h"
#include "runtime/engine/follower.h"
#include "runtime/model/spec.h"
#include "runtime/token/tokenizer.h"

namespace spillway {
namespace {

constexpr std::array<const char*, 3> kPrompts = {
    "Once upon a time, in a village by the river,",
    "The three most important things to know about water are",
    "def greatest_common_divisor(a, b):\n    \"\"\"",
};

constexpr int64_t kChunkRows = 5;
// The reference's split.
std::vector<StagePin> one_rank() { return {StagePin{0, {1.0}}}; }

// One prompt's run of the reference.
struct Trace {
  std::vector<int32_t> prompt;
  std::vector<int32_t> tokens;  // greedy, after the prompt
  Rows logits;                  // [tokens.size()][vocab]: what each was drawn from
};

int32_t best_token(std::span<const float> row) {
  return static_cast<int32_t>(std::max_element(row.begin(), row.end()) - row.begin());
}

std::vector<Trace> make_prompts(Job& job, int64_t most_tokens) {
  std::vector<Trace> traces;
  std::unique_ptr<Tokenizer> tokenizer;
  try {
    tokenizer = std::make_unique<Tokenizer>(Tokenizer::make(job.gguf()));
  } catch (const Error&) {
    // A benchmark file without a vocabulary: any ids do.
  }
  for (const char* text : kPrompts) {
    Trace trace;
    if (tokenizer != nullptr) trace.prompt = tokenizer->encode(text);
    for (int32_t i = 0; trace.prompt.size() < 4; ++i) {
      trace.prompt.push_back(static_cast<int32_t>((7 * i + 1) % job.model().vocab_size));
    }
    if (static_cast<int64_t>(trace.prompt.size()) > most_tokens) {
      trace.prompt.resize(static_cast<size_t>(most_tokens));
    }
    traces.push_back(std::move(trace));
  }
  return traces;
}

void record(ForwardLoop& loop, Trace& trace, int64_t n_tokens) {
  loop.restart();
  std::span<const int32_t> next(trace.prompt);
  for (int64_t i = 0; i < n_tokens; ++i) {
    const std::span<const float> row = loop.feed(next, 0).rows[0].whole;
    trace.logits.emplace_back(row.begin(), row.end());
    trace.tokens.push_back(best_token(row));
    next = std::span(trace.tokens).last(1);
  }
}

// `rows`, unless nullptr, gets the logits.
Difference compare(ForwardLoop& loop, const Trace& trace, int64_t chunk_rows, Rows* rows) {
  Difference difference;
  difference.greedy_prefix = 0;
  bool agrees = true;
  loop.restart();
  std::span<const int32_t> next(trace.prompt);
  for (size_t i = 0; i < trace.tokens.size(); ++i) {
    const std::span<const float> row = loop.feed(next, 0, chunk_rows).rows[0].whole;
    const std::vector<float>& reference = trace.logits[i];
    if (rows != nullptr) rows->emplace_back(row.begin(), row.end());
    difference.add_row(reference, row, static_cast<int64_t>(trace.tokens.size()));
    agrees = agrees && best_token(row) == trace.tokens[i];
    if (agrees) ++difference.greedy_prefix;
    next = std::span(trace.tokens).subspan(i, 1);
  }
  return difference;
}

class Verifier {
 public:
  Verifier(const Options& options, Job& job) : options_(options), job_(job) {
    context_ =
        std::min<int64_t>(job.model().context_length, options.context > 0 ? options.context : 1024);
    n_tokens_ = std::min(options.verify_tokens, context_ / 2);
  }

  // Every rank calls it; the result counts on the front.
  bool run() {
    if (job_.world().front()) traces_ = make_prompts(job_, context_ - n_tokens_);
    const std::vector<std::vector<StagePin>> all_of_them = splits();
    gpu_ = plan_for(one_rank()).uses_gpu() ||
           std::any_of(all_of_them.begin(), all_of_them.end(),
                       [this](const auto& split) { return plan_for(split).uses_gpu(); });
    reference();
    Difference all;
    bool repeated = false;
    for (const std::vector<StagePin>& split : all_of_them) {
      const bool several = split.front().shares.size() + split.size() > 2;
      const bool repeat = !repeated && (several || (gpu_ && &split == &all_of_them.back()));
      Rows first;
      all.merge(one(split, 0, "", repeat && gpu_ ? &first : nullptr));
      if (!repeat) continue;
      repeated = true;
      if (gpu_) {
        Rows second;
        all.merge(one(split, 0, " (again)", &second));
        repeats_bits_ = same_bits(first, second);
      }
      all.merge(one(split, kChunkRows, " (again, in chunks)", nullptr));
    }
    return report(all, all_of_them.size());
  }

 private:
  std::vector<std::vector<StagePin>> splits() const {
    if (!options_.all_splits) return {pinned()};
    std::vector<std::vector<StagePin>> all;
    for (int n = 1; n <= job_.world().size; ++n) {
      for (auto& split : all_splits(job_.model(), n, true)) {
        if (!mixes_devices(split, plan_request(options_))) all.push_back(std::move(split));
      }
    }
    return all;
  }

  // The split that the coordinator planned for all ranks.
  std::vector<StagePin> pinned() const {
    std::vector<StagePin> split;
    for (const StagePlan& stage : job_.plan().stages) {
      split.push_back({stage.layers.size(), stage.shares});
    }
    return split;
  }

  // resident: all weights in the memory of the devices that compute, whatever --place says.
  Plan plan_for(const std::vector<StagePin>& split, bool resident = false) const {
    PlanRequest request = plan_request(options_);
    if (resident) request.places.clear();
    request.tp = 0;
    request.pp = 0;
    request.split = split;
    // Of the job's own split.
    request.layers.clear();
    request.shares.clear();
    request.order.clear();
    request.context = context_;
    ClusterSpec cluster = job_.cluster();
    size_t n = 0;
    for (const StagePin& stage : split) n += stage.shares.size();
    cluster.ranks.resize(n);
    if (!request.devices.empty()) request.devices.resize(n);
    for (auto* budgets : {&request.gpu_memory, &request.host_memory}) {
      if (budgets->size() > 1) budgets->resize(n);
    }
    return make_plan(job_.model(), cluster, request);
  }

  template <typename Body>
  void with_house(const Plan& plan, Body&& body) {
    const std::unique_ptr<House> house = job_.build(plan, false);
    job_.set_state("running");
    if (!job_.world().front()) {
      follow(house->plan, house->pipeline.get(), house->mesh, job_.watchdog(), job_.metrics());
      return;
    }
    Engine engine(house->plan, job_.model(), *house->pipeline, house->mesh, job_.watchdog(),
                  job_.metrics());
    ForwardLoop loop(house->plan, engine);
    body(loop, house->plan);
    engine.stop();
  }

  void reference() {
    with_house(plan_for(one_rank(), true), [this](ForwardLoop& loop, const Plan&) {
      for (Trace& trace : traces_) record(loop, trace, n_tokens_);
    });
  }

  // note: which of a split's runs this is. rows, unless nullptr, gets the logits.
  Difference one(const std::vector<StagePin>& split, int64_t chunk_rows, const char* note,
                 Rows* rows) {
    Difference all;
    with_house(plan_for(split), [&](ForwardLoop& loop, const Plan& plan) {
      double kl = 0;
      for (const Trace& trace : traces_) {
        const Difference d = compare(loop, trace, chunk_rows, rows);
        kl += d.kl / static_cast<double>(traces_.size());
        all.merge(d);
      }
      all.kl = kl;
      if (options_.quiet) return;
      std::printf("%-44s max logit difference %-9.3g KL %-9.3g greedy %lld/%lld%s%s\n",
                  plan_title(plan).c_str(), all.max_logit, all.kl,
                  static_cast<long long>(all.greedy_prefix), static_cast<long long>(n_tokens_),
                  all.same_bits ? ", same bits" : "", note);
      std::fflush(stdout);
    });
    return all;
  }

  bool report(const Difference& all, size_t n_splits) const {
    const bool pass = gpu_
                          ? passes_on_gpus(all, repeats_bits_,
                                           options_.tolerance_given ? options_.tolerance : HUGE_VAL)
                          : all.max_logit <= options_.tolerance && all.greedy_prefix == n_tokens_;
    if (job_.world().front() && gpu_ && !options_.quiet) {
      std::printf("a GPU computes: %s bits when repeated, KL at most %g passes, logits %s\n",
                  repeats_bits_ ? "equal" : "OTHER", kMostGpuKl,
                  options_.tolerance_given ? "judged by --tolerance" : "not judged");
    }
    if (job_.world().front()) {
      std::printf(
          "verify: %s: %s, %zu prompts, max logit difference %.3g, KL %.3g, greedy "
          "%lld of %s%s\n",
          pass ? "pass" : "FAIL", count_text(static_cast<int64_t>(n_splits), "split").c_str(),
          kPrompts.size(), all.max_logit, all.kl, static_cast<long long>(all.greedy_prefix),
          count_text(n_tokens_, "token").c_str(), all.same_bits ? ", same bits everywhere" : "");
    }
    return pass;
  }

  const Options& options_;
  Job& job_;
  int64_t context_ = 0;
  int64_t n_tokens_ = 0;
  std::vector<Trace> traces_;  // front only
  bool gpu_ = false;           // some plan uses one
  bool repeats_bits_ = true;   // front only
};

// Replaces this process by mpirun over the same command line.
[[noreturn]] void start_mpirun(const Options& options) {
  std::vector<std::string> words = {"mpirun",    "--oversubscribe",
                                    "--bind-to", "none",
                                    "-np",       std::to_string(ranks_named(options))};
  if (geteuid() == 0) words.insert(words.begin() + 1, "--allow-run-as-root");
  for (const std::string& word : options.command_line) words.push_back(word);
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  execvp("mpirun", argv.data());
  throw Error(std::string("cannot start mpirun: ") + std::strerror(errno), "",
              "install openmpi-bin");
}

}  // namespace

int verb_verify(const Options& options, WorkerNote& note) {
  const int launched = launched_as().size;
  if (launched == 0 && ranks_named(options) > 1) {
    read_model_spec(Gguf::open(options.model));  // a bad file is said before mpirun makes it long
    start_mpirun(options);
  }
  if (launched > 0 && options.ranks > 0 && options.ranks != launched) {
    throw Error("--ranks " + std::to_string(options.ranks) + ", but mpirun started " +
                std::to_string(launched));
  }
  return run_job(options, note, [&](Job& job) {
    const bool pass = Verifier(options, job).run();
    job.leave(nullptr);
    // Followers know nothing of the comparison: the front's word is the job's exit code.
    return job.world().front() && !pass ? 1 : 0;
  });
}

}  // namespace spillway

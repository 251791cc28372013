// spillway verify: does every split give the same answer? One rank alone is the reference: three
// prompts, greedy, whole rows of logits kept. Every split then reads the same tokens; compared are
// each row's logits, the KL divergence, and how long the greedy text agrees. The first split with
// more than one rank runs twice, the second time with the prompt in small chunks: the bits must be
// equal. Without mpirun it starts mpirun itself.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "launch/forward_loop.h"
#include "launch/job.h"
#include "launch/verbs.h"
#include "parallel/planner.h"
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

// One prompt's run of the reference.
struct Trace {
  std::vector<int32_t> prompt;
  std::vector<int32_t> tokens;             // greedy, after the prompt
  std::vector<std::vector<float>> logits;  // [tokens.size()][vocab]: what each was drawn from
};

struct Difference {
  double max_logit = 0;
  double kl = 0;                                                // mean over rows, nats
  int64_t greedy_prefix = std::numeric_limits<int64_t>::max();  // the shortest of the prompts
  bool same_bits = true;

  void merge(const Difference& other) {
    max_logit = std::max(max_logit, other.max_logit);
    kl = std::max(kl, other.kl);
    greedy_prefix = std::min(greedy_prefix, other.greedy_prefix);
    same_bits = same_bits && other.same_bits;
  }
};

int32_t best_token(std::span<const float> row) {
  return static_cast<int32_t>(std::max_element(row.begin(), row.end()) - row.begin());
}

// KL(p || q) of two rows of logits, in nats.
double kl_divergence(std::span<const float> p, std::span<const float> q) {
  const auto log_sum = [](std::span<const float> row) {
    const double most = *std::max_element(row.begin(), row.end());
    double sum = 0;
    for (const float x : row) sum += std::exp(static_cast<double>(x) - most);
    return most + std::log(sum);
  };
  const double log_p = log_sum(p);
  const double log_q = log_sum(q);
  double kl = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    const double lp = static_cast<double>(p[i]) - log_p;
    kl += std::exp(lp) * (lp - (static_cast<double>(q[i]) - log_q));
  }
  return std::max(0.0, kl);
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

Difference compare(ForwardLoop& loop, const Trace& trace, int64_t chunk_rows) {
  Difference difference;
  difference.greedy_prefix = 0;
  bool agrees = true;
  loop.restart();
  std::span<const int32_t> next(trace.prompt);
  for (size_t i = 0; i < trace.tokens.size(); ++i) {
    const std::span<const float> row = loop.feed(next, 0, chunk_rows).rows[0].whole;
    const std::vector<float>& reference = trace.logits[i];
    for (size_t t = 0; t < row.size(); ++t) {
      const double gap = std::fabs(static_cast<double>(row[t]) - static_cast<double>(reference[t]));
      // A NaN on either side must not pass for equal.
      if (!(gap <= difference.max_logit)) difference.max_logit = std::isnan(gap) ? HUGE_VAL : gap;
    }
    difference.same_bits =
        difference.same_bits && std::memcmp(row.data(), reference.data(), row.size_bytes()) == 0;
    difference.kl += kl_divergence(reference, row) / static_cast<double>(trace.tokens.size());
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
    reference();
    Difference all;
    bool repeated = false;
    size_t n_splits = 0;
    for (const std::vector<StagePin>& split : splits()) {
      Difference d = one(split, 0);
      if (!repeated && split.front().shares.size() + split.size() > 2) {
        repeated = true;
        const Difference again = one(split, 5);
        d.same_bits = d.same_bits && again.same_bits;
        d.merge(again);
      }
      all.merge(d);
      ++n_splits;
    }
    return report(all, n_splits);
  }

 private:
  std::vector<std::vector<StagePin>> splits() const {
    if (!options_.all_splits) return {pinned()};
    std::vector<std::vector<StagePin>> all;
    for (int n = 1; n <= job_.world().size; ++n) {
      for (auto& split : all_splits(job_.model(), n, true)) all.push_back(std::move(split));
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

  Plan plan_for(const std::vector<StagePin>& split) const {
    PlanRequest request = plan_request(options_);
    request.tp = 0;
    request.pp = 0;
    request.split = split;
    request.context = context_;
    ClusterSpec cluster = job_.cluster();
    size_t n = 0;
    for (const StagePin& stage : split) n += stage.shares.size();
    cluster.ranks.resize(n);
    return make_plan(job_.model(), cluster, request);
  }

  template <typename Body>
  void with_house(const std::vector<StagePin>& split, Body&& body) {
    const std::unique_ptr<House> house = job_.build(plan_for(split), false);
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
    with_house({StagePin{0, {1.0}}}, [this](ForwardLoop& loop, const Plan&) {
      for (Trace& trace : traces_) record(loop, trace, n_tokens_);
    });
  }

  Difference one(const std::vector<StagePin>& split, int64_t chunk_rows) {
    Difference all;
    with_house(split, [&](ForwardLoop& loop, const Plan& plan) {
      for (const Trace& trace : traces_) all.merge(compare(loop, trace, chunk_rows));
      if (options_.quiet) return;
      std::printf("%-44s max logit difference %-9.3g KL %-9.3g greedy %lld/%lld%s%s\n",
                  plan_title(plan).c_str(), all.max_logit, all.kl,
                  static_cast<long long>(all.greedy_prefix), static_cast<long long>(n_tokens_),
                  all.same_bits ? ", same bits" : "", chunk_rows > 0 ? " (again, in chunks)" : "");
      std::fflush(stdout);
    });
    return all;
  }

  bool report(const Difference& all, size_t n_splits) const {
    const bool pass = all.max_logit <= options_.tolerance && all.greedy_prefix == n_tokens_;
    if (job_.world().front()) {
      std::printf(
          "verify: %s: %zu splits, %zu prompts, max logit difference %.3g, KL %.3g, greedy "
          "%lld of %lld tokens%s\n",
          pass ? "pass" : "FAIL", n_splits, kPrompts.size(), all.max_logit, all.kl,
          static_cast<long long>(all.greedy_prefix), static_cast<long long>(n_tokens_),
          all.same_bits ? ", same bits everywhere" : "");
    }
    return pass;
  }

  const Options& options_;
  Job& job_;
  int64_t context_ = 0;
  int64_t n_tokens_ = 0;
  std::vector<Trace> traces_;  // front only
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
  Job job(options, note);
  bool pass = false;
  try {
    pass = Verifier(options, job).run();
  } catch (const SharedError&) {
    throw;
  } catch (const Error& e) {
    job.fail(e);
  }
  job.leave();
  // Followers know nothing of the comparison: the front's word is the job's exit code.
  return job.world().front() && !pass ? 1 : 0;
}

}  // namespace spillway

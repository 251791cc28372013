// spillway perplexity: how well the model predicts a text: exp of the mean negative log likelihood
// of its tokens, with the standard error, from every split of the ranks the same.
//   Without --stride the definition of llama.cpp's llama-perplexity: the text (tokenised once, with
//   BOS if the model adds it, special tokens taken for letters) is cut into chunks of -c tokens; a
//   chunk starts from an empty cache, BOS in place of its first token if the model adds BOS; the
//   logits at positions C/2 to C - 2 are scored against the tokens that follow them.
//   With --stride N windows of -c tokens begin N tokens apart, each from an empty cache and with
//   BOS as above; the last N tokens of a window are scored, and all but the first of the first
//   window.
// perplexity_windows.h has the arithmetic. The front alone reads the text and scores; the head is
// computed for scored rows only, and a chunk's last token is never fed.
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "kernels/core/error.h"
#include "launch/forward_loop.h"
#include "launch/job.h"
#include "launch/perplexity_windows.h"
#include "launch/standard_streams.h"
#include "launch/verbs.h"
#include "parallel/size_text.h"
#include "runtime/engine/follower.h"
#include "runtime/token/tokenizer.h"

namespace spillway {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// What is to be read; filled on the front only.
struct Text {
  std::vector<int32_t> tokens;
  std::optional<int32_t> bos;  // in place of each window's first token
  std::vector<Window> windows;
};

Text read_text(const Options& options, const Gguf& gguf, const ModelSpec& model) {
  std::error_code none;
  const auto kind = std::filesystem::status(options.text_file, none).type();
  if (kind != std::filesystem::file_type::regular &&
      kind != std::filesystem::file_type::not_found) {
    throw Error("the text is not a regular file", options.text_file, "pass -f FILE");
  }
  if (std::filesystem::file_size(options.text_file, none) == 0) {
    throw Error("the text is empty", options.text_file, "pass a file with text");
  }
  // Read, not mapped: a text that shrinks meanwhile is a shorter text, not a SIGBUS.
  const std::string bytes = read_file_bytes(options.text_file);
  const Tokenizer tokenizer = Tokenizer::make(gguf);
  Text text;
  text.tokens = tokenizer.encode(bytes, {.add_special = true, .parse_special = false});
  if (tokenizer.adds_bos()) text.bos = tokenizer.bos();
  const auto n_tokens = static_cast<int64_t>(text.tokens.size());
  text.windows = perplexity_windows(n_tokens, options.context, options.stride, options.most_chunks);
  if (text.windows.empty()) {
    throw Error("the text has " + count_text(n_tokens, "token") + ", one chunk needs " +
                    std::to_string(options.context),
                options.text_file, "pass a longer text or a smaller -c");
  }
  for (const int32_t token : text.tokens) {
    if (token < model.vocab_size) continue;
    throw Error("the tokeniser gives token " + std::to_string(token) + ", the model has " +
                    std::to_string(model.vocab_size),
                options.model, "the file's vocabulary and embedding do not fit each other");
  }
  return text;
}

// A line on standard error: rewritten in place on a terminal, else a new one every ten seconds.
class Progress {
 public:
  explicit Progress(bool shown) : shown_(shown), terminal_(isatty(STDERR_FILENO) == 1) {}

  void update(int64_t done, int64_t total, int64_t tokens, double perplexity) {
    const double seconds = seconds_since(begin_);
    const double pause = terminal_ ? 0.2 : 10;
    if (!shown_ || (done < total && seconds < next_s_)) return;
    next_s_ = seconds + pause;
    const double left = seconds / static_cast<double>(done) * static_cast<double>(total - done);
    std::fprintf(stderr, "%schunk %lld of %lld, PPL %.4f, %.1f tok/s, %.0f s left%s",
                 terminal_ ? "\r" : "", static_cast<long long>(done), static_cast<long long>(total),
                 perplexity, static_cast<double>(tokens) / seconds, left,
                 terminal_ && done < total ? "   " : "\n");
    std::fflush(stderr);
  }

 private:
  bool shown_;
  bool terminal_;
  double next_s_ = 0;
  Clock::time_point begin_ = Clock::now();
};

class PerplexityFront {
 public:
  PerplexityFront(const Options& options, Job& job, House& house, const Text& text)
      : options_(options),
        job_(job),
        plan_(house.plan),
        text_(text),
        engine_(house.plan, job.model(), *house.pipeline, house.mesh, job.watchdog(),
                job.metrics()),
        loop_(house.plan, engine_),
        nlls_(static_cast<size_t>(house.plan.limits.max_logit_rows)) {}

  void run() {
    Progress progress(!options_.quiet);
    const auto begin = Clock::now();
    const auto total = static_cast<int64_t>(text_.windows.size());
    for (int64_t i = 0; i < total; ++i) {
      read(text_.windows[static_cast<size_t>(i)]);
      progress.update(i + 1, total, tokens_read_, sum_.perplexity());
    }
    seconds_ = seconds_since(begin);
    engine_.stop();
    if (options_.json) {
      print_json();
    } else {
      print_line();
    }
  }

  // Whether the ranks can go on together, whatever the model said.
  bool sound() const { return job_.world().communicator->healthy() && engine_.sound(); }
  // Ends the followers when the front cannot go on.
  void stop() { engine_.stop(); }

 private:
  void read(const Window& window) {
    const auto first = text_.tokens.begin() + window.begin;
    tokens_.assign(first, first + options_.context);
    if (text_.bos) tokens_[0] = *text_.bos;
    loop_.restart();
    const auto steps =
        window_steps(window, options_.context, plan_.limits.max_rows, plan_.limits.max_logit_rows);
    int64_t at = 0;
    for (const WindowStep& step : steps) {
      const auto begin = Clock::now();
      const std::span<const int32_t> all(tokens_);
      const auto rows = static_cast<size_t>(step.n_rows);
      const StepResult& result =
          loop_.step(all.subspan(static_cast<size_t>(at), rows), step.n_scored);
      at += step.n_rows;
      // Position i predicts token i + 1.
      score(result,
            all.subspan(static_cast<size_t>(at - step.n_scored + 1),
                        static_cast<size_t>(step.n_scored)),
            window.begin + at - step.n_scored + 1);
      tokens_read_ += step.n_rows;
      job_.metrics().prompt_tokens = tokens_read_;
      job_.metrics().prefill_ns += (Clock::now() - begin).count();
    }
  }

  // targets[i] is what row i predicts and lies at first_target + i in the text.
  void score(const StepResult& result, std::span<const int32_t> targets, int64_t first_target) {
    const auto n = static_cast<int64_t>(targets.size());
    ThreadPool& pool = *job_.exec().pool;
    pool.run([&](int worker) {
      const Range part = pool.part(worker, n);
      for (auto i = static_cast<size_t>(part.begin); i < static_cast<size_t>(part.end); ++i) {
        nlls_[i] = token_nll(result.rows[i].whole, targets[i]);
      }
    });
    // In the text's order, so that the sum depends on neither threads nor split.
    for (int64_t i = 0; i < n; ++i) {
      const double nll = nlls_[static_cast<size_t>(i)];
      if (!std::isfinite(nll)) {
        throw NotFinite("the model gives token " + std::to_string(first_target + i) +
                            " of the text no probability: its logits are not finite",
                        options_.model, "the file's weights are damaged");
      }
      sum_.add(nll);
    }
  }

  void print_line() const {
    const std::string stride =
        options_.stride > 0 ? ", stride " + std::to_string(options_.stride) : "";
    std::printf("PPL = %.4f +/- %.4f (%s scored in %s of %lld%s; %s)\n", sum_.perplexity(),
                sum_.error(), count_text(sum_.count(), "token").c_str(),
                count_text(static_cast<int64_t>(text_.windows.size()), "chunk").c_str(),
                static_cast<long long>(options_.context), stride.c_str(),
                plan_title(plan_).c_str());
  }

  void print_json() const {
    nlohmann::ordered_json out;
    out["perplexity"] = sum_.perplexity();
    out["error"] = sum_.error();
    out["nll"] = sum_.mean();
    out["tokens_scored"] = sum_.count();
    out["chunks"] = text_.windows.size();
    out["context"] = options_.context;
    out["stride"] = options_.stride;
    out["text_tokens"] = text_.tokens.size();
    out["seconds"] = seconds_;
    out["tok_per_s"] = static_cast<double>(tokens_read_) / seconds_;
    out["model"] = job_.model().name;
    out["split"] = plan_title(plan_);
    // The model's name is the file's, and need not be UTF-8.
    std::cout << out.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
  }

  const Options& options_;
  Job& job_;
  const Plan& plan_;
  const Text& text_;
  Engine engine_;
  ForwardLoop loop_;
  std::vector<int32_t> tokens_;  // of the window at hand
  std::vector<double> nlls_;     // of the step at hand
  NllSum sum_;
  int64_t tokens_read_ = 0;
  double seconds_ = 0;
};

int perplexity(const Options& options, Job& job) {
  Text text;
  std::string error;
  if (job.world().front()) {
    try {
      text = read_text(options, job.gguf(), job.model());
    } catch (const Error& e) {
      error = e.what();
    }
  }
  agree(job.world(), error);  // before the weights are loaded
  std::unique_ptr<House> house = job.build(job.plan(), true);
  job.set_state("running");
  int code = 0;
  if (job.world().front()) {
    PerplexityFront front(options, job, *house, text);
    code = run_front(job, front);
  } else {
    follow(house->plan, house->pipeline.get(), house->mesh, job.watchdog(), job.metrics());
  }
  job.leave(std::move(house));
  return code;
}

}  // namespace

int verb_perplexity(const Options& options, WorkerNote& note) {
  return run_job(options, note, [&](Job& job) { return perplexity(options, job); });
}

}  // namespace spillway

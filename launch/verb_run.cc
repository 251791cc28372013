// spillway run: a prompt, standard input, or a chat, on all ranks that mpirun started. The table of
// contents of the whole program: read it first.
#include <cstdio>
#include <iostream>
#include <iterator>
#include <memory>
#include <optional>
#include <random>
#include <string>

#include "kernels/core/error.h"
#include "launch/job.h"
#include "launch/standard_streams.h"
#include "launch/verbs.h"
#include "parallel/agreement.h"
#include "parallel/explain.h"
#include "parallel/size_text.h"
#include "rpc/job_status.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/follower.h"
#include "runtime/token/chat_template.h"
#include "runtime/token/detokenizer.h"
#include "runtime/token/tokenizer.h"

namespace spillway {
namespace {

// Writes tokens to standard output as they come, in whole characters.
class TerminalSink : public TokenSink {
 public:
  explicit TerminalSink(const Tokenizer& tokenizer, bool at_start)
      : detokenizer_(tokenizer, at_start) {}

  bool on_token(int32_t token) override { return write(detokenizer_.push(token)); }
  void on_finish(FinishReason reason, const std::string& message) override {
    write(detokenizer_.finish());
    reason_ = reason;
    message_ = message;
  }

  const std::string& text() const { return text_; }
  FinishReason reason() const { return reason_; }
  const std::string& message() const { return message_; }

 private:
  // A reader that is gone (a closed pipe) cancels the request.
  bool write(const std::string& piece) {
    text_ += piece;
    if (piece.empty()) return true;
    std::cout << piece << std::flush;
    return static_cast<bool>(std::cout);
  }

  Detokenizer detokenizer_;
  std::string text_;
  FinishReason reason_ = FinishReason::kError;
  std::string message_;
};

// What the front knows before weights are read: a prompt that cannot be costs no loading.
struct Asked {
  std::unique_ptr<Tokenizer> tokenizer;
  std::optional<ChatTemplate> chat_template;  // with --chat
  std::vector<int32_t> prompt;                // without --chat
};

void check_length(const char* what, size_t tokens, const Plan& plan, const char* todo) {
  if (static_cast<int64_t>(tokens) < plan.kv.context) return;
  throw Error(std::string(what) + " has " + count_text(static_cast<int64_t>(tokens), "token") +
                  ", the context is " + std::to_string(plan.kv.context),
              "", todo);
}

std::vector<int32_t> read_prompt(const Options& options, const Tokenizer& tokenizer) {
  if (!options.prompt && !options.quiet) say_what_is_awaited("the prompt");
  std::vector<int32_t> ids = tokenizer.encode(
      options.prompt ? *options.prompt : std::string(std::istreambuf_iterator<char>(std::cin), {}));
  // -p "" starts from the beginning of a text; nothing on standard input is a mistake.
  if (ids.empty() && options.prompt && tokenizer.bos()) ids.push_back(*tokenizer.bos());
  if (ids.empty()) throw Error("the prompt is empty", "", "pass -p TEXT or standard input");
  return ids;
}

std::vector<ChatMessage> first_messages(const Options& options) {
  std::vector<ChatMessage> messages;
  if (!options.system.empty()) messages.push_back({"system", options.system});
  return messages;
}

// The conversation with one more question, as the model reads it.
std::vector<int32_t> chat_prompt(const Asked& asked, const std::vector<ChatMessage>& messages,
                                 const Plan& plan) {
  const Tokenizer& tokenizer = *asked.tokenizer;
  const auto text_of = [&](std::optional<int32_t> token) {
    return token ? std::string(tokenizer.token_text(*token)) : std::string();
  };
  const std::string text = asked.chat_template->render(messages, true, text_of(tokenizer.bos()),
                                                       text_of(tokenizer.eos()));
  // The template writes BOS itself when the model wants it.
  std::vector<int32_t> ids = tokenizer.encode(text, {.add_special = false, .parse_special = true});
  const bool first = messages.size() == 1 || messages[messages.size() - 2].role == "system";
  check_length(first ? "the question" : "the conversation so far", ids.size(), plan,
               first ? "use -c or a shorter question" : "use -c, or begin anew");
  return ids;
}

Asked ask(const Options& options, const Job& job) {
  const std::string reason =
      check_sampling(options.sampling, job.model().vocab_size, job.plan().limits);
  if (!reason.empty()) throw Error(reason);
  Asked asked;
  asked.tokenizer = std::make_unique<Tokenizer>(Tokenizer::make(job.gguf()));
  if (!options.chat) {
    asked.prompt = read_prompt(options, *asked.tokenizer);
    check_length("the prompt", asked.prompt.size(), job.plan(), "use -c or a shorter prompt");
    return asked;
  }
  const std::string_view source = job.gguf().string_or("tokenizer.chat_template", "");
  if (source.empty()) {
    throw Error("the model has no chat template", options.model,
                "run it without --chat to complete text");
  }
  asked.chat_template = ChatTemplate::parse(source);
  if (options.prompt) {
    std::vector<ChatMessage> messages = first_messages(options);
    messages.push_back({"user", *options.prompt});
    chat_prompt(asked, messages, job.plan());
  }
  return asked;
}

// Small models take less than a millisecond.
std::string ms_text(double ms) { return fixed_text(ms, ms < 1 ? 3 : ms < 100 ? 1 : 0); }

class RunFront {
 public:
  RunFront(const Options& options, Job& job, House& house, const Asked& asked)
      : options_(options),
        job_(job),
        asked_(asked),
        tokenizer_(*asked.tokenizer),
        engine_(house.plan, job.model(), *house.pipeline, house.mesh, job.watchdog(),
                job.metrics()),
        sampling_(options.sampling) {
    if (!options.seed_given) sampling_.seed = std::random_device{}();
  }

  void run() {
    if (options_.chat) {
      chat();
    } else {
      generate(asked_.prompt, false);
    }
    engine_.stop();
    if (!options_.quiet) print_statistics();
  }

  // Whether the ranks can go on together, whatever the request did.
  bool sound() const { return job_.world().communicator->healthy() && engine_.sound(); }
  // Ends the followers when the front cannot go on.
  void stop() { engine_.stop(); }

 private:
  // Generates after `prompt`; the new text.
  std::string generate(std::vector<int32_t> prompt, bool at_start) {
    TerminalSink sink(tokenizer_, at_start);
    Request request;
    request.prompt = std::move(prompt);
    request.max_new_tokens = options_.new_tokens;
    request.sampling = sampling_;
    request.sink = &sink;
    if (!options_.ignore_eos) {
      for (int32_t t = 0; t < tokenizer_.vocab_size(); ++t) {
        if (tokenizer_.is_end(t)) request.end_tokens.push_back(t);
      }
    }
    const std::string refused = engine_.submit(std::move(request));
    if (!refused.empty()) throw Error(refused);
    engine_.run_until_idle();
    std::cout << "\n" << std::flush;
    finish_reason_ = sink.reason();
    return sink.text();
  }

  void chat() {
    std::vector<ChatMessage> messages = first_messages(options_);
    if (options_.prompt) {
      answer(messages, *options_.prompt);
      return;
    }
    std::string line;
    while (next_line(line)) {
      if (!line.empty()) answer(messages, line);
    }
  }

  bool next_line(std::string& line) const {
    job_.set_state(kReadsLine);
    prompt_for_line();
    const bool there = static_cast<bool>(std::getline(std::cin, line));
    job_.set_state("running");
    return there;
  }

  void prompt_for_line() const {
    if (!options_.quiet) std::fputs("> ", stderr);
  }

  void answer(std::vector<ChatMessage>& messages, const std::string& question) {
    messages.push_back({"user", question});
    messages.push_back({"assistant", generate(chat_prompt(asked_, messages, job_.plan()), true)});
  }

  void print_statistics() const {
    const Metrics& m = job_.metrics();
    char decode[64] = "";  // one token is the prompt's last step: no speed of decode
    if (m.decode_tok_per_s() > 0) {
      std::snprintf(decode, sizeof(decode), ", %.1f tok/s, %s ms each", m.decode_tok_per_s(),
                    ms_text(1000.0 / m.decode_tok_per_s()).c_str());
    }
    std::fprintf(stderr,
                 "\nprompt %s, %.1f tok/s | new %s%s | first token after %s ms "
                 "| end: %s | seed %llu | memory %s\n",
                 count_text(m.prompt_tokens, "token").c_str(), m.prefill_tok_per_s(),
                 count_text(m.new_tokens, "token").c_str(), decode,
                 ms_text(1e-6 * static_cast<double>(m.first_token_ns)).c_str(),
                 finish_reason_name(finish_reason_),
                 static_cast<unsigned long long>(sampling_.seed),
                 size_text(job_.resident_bytes()).c_str());
  }

  const Options& options_;
  Job& job_;
  const Asked& asked_;
  const Tokenizer& tokenizer_;
  Engine engine_;
  SamplingParams sampling_;
  FinishReason finish_reason_ = FinishReason::kStop;
};

int run(const Options& options, Job& job) {
  if (job.world().front() && options.show_plan) {
    std::fputs(plan_table(job.plan(), job.model(), job.cluster()).c_str(), stderr);
    const auto fewer = fewer_ranks(job.plan(), job.model(), job.cluster(), plan_request(options));
    if (fewer) std::fputs(fewer_ranks_text(*fewer).c_str(), stderr);
  }
  Asked asked;
  if (job.world().front() && !options.chat && !options.prompt) job.set_state(kReadsPrompt);
  agree(job.world(), job.world().front() ? obstacle_of([&] { asked = ask(options, job); }) : "");
  std::unique_ptr<House> house = job.build(job.plan(), true);  // mesh, arenas, weights
  job.set_state("running");
  int code = 0;
  if (job.world().front()) {
    RunFront front(options, job, *house, asked);
    code = run_front(job, front);
  } else {
    follow(house->plan, house->pipeline.get(), house->mesh, job.watchdog(), job.metrics());
  }
  job.leave(std::move(house));
  return code;
}

}  // namespace

int verb_run(const Options& options, WorkerNote& note) {
  // Who am I, what have I, join, plan; then the above.
  return run_job(options, note, [&](Job& job) { return run(options, job); });
}

}  // namespace spillway

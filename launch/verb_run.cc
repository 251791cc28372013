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
#include "launch/verbs.h"
#include "parallel/explain.h"
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

class RunFront {
 public:
  RunFront(const Options& options, Job& job, House& house, const Tokenizer& tokenizer)
      : options_(options),
        job_(job),
        tokenizer_(tokenizer),
        engine_(house.plan, job.model(), *house.pipeline, house.mesh, job.watchdog(),
                job.metrics()),
        sampling_(options.sampling) {
    if (!options.seed_given) sampling_.seed = std::random_device{}();
  }

  void run() {
    if (options_.chat) {
      chat();
    } else {
      complete(options_.prompt ? *options_.prompt : read_all());
    }
    engine_.stop();
    if (!options_.quiet) print_statistics();
  }

  // Ends the followers when the front cannot go on.
  void stop() { engine_.stop(); }

 private:
  static std::string read_all() {
    return {std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
  }

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

  void complete(const std::string& prompt) {
    std::vector<int32_t> ids = tokenizer_.encode(prompt);
    // -p "" starts from the beginning of a text; nothing on standard input is a mistake.
    if (ids.empty() && options_.prompt && tokenizer_.bos()) ids.push_back(*tokenizer_.bos());
    if (ids.empty()) throw Error("the prompt is empty", "", "pass -p TEXT or standard input");
    generate(std::move(ids), false);
  }

  void chat() {
    const std::string_view source = job_.gguf().string_or("tokenizer.chat_template", "");
    if (source.empty()) {
      throw Error("the model has no chat template", options_.model,
                  "run it without --chat to complete text");
    }
    const ChatTemplate chat_template = ChatTemplate::parse(source);
    std::vector<ChatMessage> messages;
    if (!options_.system.empty()) messages.push_back({"system", options_.system});
    if (options_.prompt) {
      answer(chat_template, messages, *options_.prompt);
      return;
    }
    std::string line;
    while (prompt_for_line(), std::getline(std::cin, line)) {
      if (!line.empty()) answer(chat_template, messages, line);
    }
  }

  void prompt_for_line() const {
    if (!options_.quiet) std::fputs("> ", stderr);
  }

  void answer(const ChatTemplate& chat_template, std::vector<ChatMessage>& messages,
              const std::string& question) {
    messages.push_back({"user", question});
    const auto text_of = [&](std::optional<int32_t> token) {
      return token ? std::string(tokenizer_.token_text(*token)) : std::string();
    };
    const std::string text =
        chat_template.render(messages, true, text_of(tokenizer_.bos()), text_of(tokenizer_.eos()));
    // The template writes BOS itself when the model wants it.
    std::vector<int32_t> ids =
        tokenizer_.encode(text, {.add_special = false, .parse_special = true});
    messages.push_back({"assistant", generate(std::move(ids), true)});
  }

  void print_statistics() const {
    const Metrics& m = job_.metrics();
    std::fprintf(stderr,
                 "\nprompt %lld tokens, %.1f tok/s | new %lld tokens, %.1f tok/s, %.1f ms each | "
                 "first token after %.0f ms | end: %s | seed %llu | memory %s\n",
                 static_cast<long long>(m.prompt_tokens), m.prefill_tok_per_s(),
                 static_cast<long long>(m.new_tokens), m.decode_tok_per_s(),
                 m.decode_tok_per_s() > 0 ? 1000.0 / m.decode_tok_per_s() : 0.0,
                 1e-6 * static_cast<double>(m.first_token_ns), finish_reason_name(finish_reason_),
                 static_cast<unsigned long long>(sampling_.seed),
                 size_text(job_.resident_bytes()).c_str());
  }

  const Options& options_;
  Job& job_;
  const Tokenizer& tokenizer_;
  Engine engine_;
  SamplingParams sampling_;
  FinishReason finish_reason_ = FinishReason::kStop;
};

int run_front(const Options& options, Job& job, House& house, const Tokenizer& tokenizer) {
  RunFront front(options, job, house, tokenizer);
  try {
    front.run();
  } catch (const Error& error) {
    // A request that cannot be: the house is sound, everybody leaves in order.
    if (!job.world().communicator->healthy()) throw;
    std::fprintf(stderr, "spillway: %s\n", job.sentence(error).c_str());
    front.stop();
    return 1;
  }
  return 0;
}

}  // namespace

int verb_run(const Options& options, WorkerNote& note) {
  Job job(options, note);  // who am I, what have I, join, plan
  if (job.world().front() && options.show_plan) {
    std::fputs(plan_table(job.plan(), job.model(), job.cluster()).c_str(), stderr);
    const auto fewer = fewer_ranks(job.plan(), job.model(), job.cluster(), plan_request(options));
    if (fewer) std::fputs(fewer_ranks_text(*fewer).c_str(), stderr);
  }
  std::unique_ptr<House> house = job.build(job.plan(), true);  // mesh, arenas, weights
  std::unique_ptr<Tokenizer> tokenizer;
  std::string error;
  if (job.world().front()) {
    try {
      tokenizer = std::make_unique<Tokenizer>(Tokenizer::make(job.gguf()));
    } catch (const Error& e) {
      error = e.what();
    }
  }
  agree(job.world(), error);
  job.set_state("running");
  int code = 0;
  try {
    if (job.world().front()) {
      code = run_front(options, job, *house, *tokenizer);
    } else {
      follow(house->plan, house->pipeline.get(), house->mesh, job.watchdog(), job.metrics());
    }
  } catch (const Error& e) {
    job.fail(e);
  }
  job.leave(std::move(house));
  return code;
}

}  // namespace spillway

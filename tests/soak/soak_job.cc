// soak_job: a job of the ranks that mpirun started, or of one, which answers mixed requests in
// rounds for as long as it is told to. Started by tests/soak/run, which measures it between rounds.
//
//   soak_job FLAGS       those of `spillway bench`: -m, -c, --sequences, --tp, --place, --device,
//   ...
//
// Standard input: a line a round; its end ends the job. Standard output: "ready" when all is
// loaded, after each round "idle ROUND requests tokens". Everything on the way from a request to
// its tokens is the program's own: coordinator, heartbeats, engine, scheduler. What it lacks is a
// server: a thread of this program asks, as a server's would.
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <deque>
#include <iostream>
#include <limits>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "kernels/core/error.h"
#include "launch/job.h"
#include "launch/options.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/follower.h"

namespace spillway {
namespace {

// One request and whoever asked.
struct Client : TokenSink {
  FinishReason expected = FinishReason::kLength;
  int64_t leaves_after = std::numeric_limits<int64_t>::max();  // tokens
  std::atomic<bool> cancelled{false};
  std::chrono::microseconds cancel_after{0};  // 0: not by this way
  std::string reply;                          // the sink's message, or why not what was expected
  std::atomic<bool> done{false};
  int64_t tokens = 0;

  bool on_token(int32_t) override { return ++tokens < leaves_after; }
  void on_finish(FinishReason reason, const std::string& message) override {
    // Cancelled from beside, it may have been through before.
    const bool fine =
        reason == expected || (cancel_after.count() > 0 && reason != FinishReason::kError);
    if (!fine) reply = std::string(finish_reason_name(reason)) + " " + message;
    done = true;
  }
};

class Round {
 public:
  Round(const Plan& plan, const ModelSpec& model, Engine& engine, int64_t number)
      : plan_(plan), model_(model), engine_(engine), random_(static_cast<uint32_t>(number)) {}

  // Asks from a thread of its own while this one steps. Throws Error when an answer is not the one
  // that this kind of request has.
  void run() {
    std::atomic<bool> asked{false};
    std::thread asking([&] {
      ask_all();
      asked = true;
    });
    while (!asked || !idle()) {
      if (!engine_.step()) std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    asking.join();
    for (const Client& client : clients_) {
      tokens_ += client.tokens;
      if (!client.reply.empty()) throw Error("an answer ended otherwise: " + client.reply, "soak");
    }
    if (!wrong_.empty()) throw Error(wrong_, "soak");
  }

  int64_t requests() const { return static_cast<int64_t>(clients_.size()); }
  int64_t tokens() const { return tokens_; }

 private:
  int64_t any(int64_t from, int64_t to) {
    return from + static_cast<int64_t>(random_() % static_cast<uint64_t>(to - from + 1));
  }

  Request request(int64_t prompt, int64_t new_tokens) {
    Request out;
    for (int64_t i = 0; i < prompt; ++i) {
      out.prompt.push_back(static_cast<int32_t>(any(0, model_.vocab_size - 1)));
    }
    out.max_new_tokens = new_tokens;
    out.sampling.temperature = any(0, 1) == 0 ? 0.0F : 1.1F;
    out.sampling.repeat_penalty = any(0, 1) == 0 ? 1.0F : 1.2F;
    out.sampling.seed = random_();
    return out;
  }

  void ask(Request request, FinishReason expected, int64_t leaves_after = 0,
           std::chrono::microseconds cancel_after = {}) {
    Client& client = clients_.emplace_back();
    client.expected = expected;
    if (leaves_after > 0) client.leaves_after = leaves_after;
    client.cancel_after = cancel_after;
    request.sink = &client;
    request.cancelled = &client.cancelled;
    const std::string refused = engine_.submit(std::move(request));
    if (refused.empty()) return;
    if (refused.rfind("the queue is full", 0) != 0) client.reply = refused;
    client.done = true;
  }

  void ask_wrongly(Request request) {
    Client& client = clients_.emplace_back();
    request.sink = &client;
    if (engine_.submit(std::move(request)).empty()) wrong_ = "a wrong request was taken";
    client.done = true;
  }

  void ask_all() {
    const int64_t context = plan_.kv.context;
    for (int i = 0; i < 8; ++i) {
      ask(request(any(1, 24), any(1, 16)), FinishReason::kLength);
      ask(request(any(1, 24), any(8, 64)), FinishReason::kCancelled, any(1, 7));
      ask(request(any(1, 200), 300), FinishReason::kLength, 0,
          std::chrono::microseconds(any(1, 3000)));
      cancel_some();
    }
    ask(request(any(1, 24), 1 << 20), FinishReason::kContext);  // to the context's end
    ask(request(context - 1, 1 << 20), FinishReason::kContext);
    ask(request(context / 2, 3), FinishReason::kLength);
    ask_all_wrongly();
    // More than the queue holds, at once.
    for (int i = 0; i < 80; ++i) ask(request(any(1, 4), any(1, 3)), FinishReason::kLength);
    cancel_some();
  }

  void ask_all_wrongly() {
    ask_wrongly(request(0, 4));
    ask_wrongly(request(plan_.kv.context, 4));
    Request odd = request(3, 4);
    odd.prompt[1] = static_cast<int32_t>(model_.vocab_size);
    ask_wrongly(std::move(odd));
    odd = request(3, 4);
    odd.sampling.top_p = std::numeric_limits<float>::quiet_NaN();
    ask_wrongly(std::move(odd));
    odd = request(3, 4);
    odd.sampling.temperature = 1.0F;  // greedy needs no candidates
    odd.sampling.top_k = std::numeric_limits<int32_t>::max();
    ask_wrongly(std::move(odd));
  }

  void cancel_some() {
    for (Client& client : clients_) {
      if (client.cancel_after.count() == 0 || client.cancelled) continue;
      std::this_thread::sleep_for(client.cancel_after);
      client.cancelled = true;
    }
  }

  bool idle() const {
    for (const Client& client : clients_) {
      if (!client.done) return false;
    }
    return true;
  }

  const Plan& plan_;
  const ModelSpec& model_;
  Engine& engine_;
  std::mt19937_64 random_;
  std::deque<Client> clients_;  // their addresses stay
  std::string wrong_;
  int64_t tokens_ = 0;
};

void serve(Job& job, House& house) {
  Engine engine(house.plan, job.model(), *house.pipeline, house.mesh, job.watchdog(),
                job.metrics());
  std::puts("ready");
  std::fflush(stdout);
  std::string line;
  for (int64_t number = 0; std::getline(std::cin, line); ++number) {
    Round round(house.plan, job.model(), engine, number);
    round.run();
    std::printf("idle %lld %lld %lld\n", static_cast<long long>(number),
                static_cast<long long>(round.requests()), static_cast<long long>(round.tokens()));
    std::fflush(stdout);
  }
  engine.stop();
}

int soak(int argc, char** argv) {
  std::vector<const char*> words = {argv[0], "bench"};
  words.insert(words.end(), argv + 1, argv + argc);
  const Options options = parse_options(static_cast<int>(words.size()), words.data());
  WorkerNote* note = supervise(launched_as());
  Job job(options, *note);
  std::unique_ptr<House> house = job.build(job.plan(), true);
  job.set_state("running");
  try {
    if (job.world().front()) {
      serve(job, *house);
    } else {
      follow(house->plan, house->pipeline.get(), house->mesh, job.watchdog(), job.metrics());
    }
  } catch (const Error& e) {
    job.fail(e);
  }
  job.leave(std::move(house));
  return 0;
}

}  // namespace
}  // namespace spillway

int main(int argc, char** argv) {
  int code = 1;
  try {
    code = spillway::soak(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "soak_job: %s\n", error.what());
  }
  std::fflush(stdout);
  _exit(code);
}

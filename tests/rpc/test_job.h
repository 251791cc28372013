// A job in one process: a coordinator that records its callbacks, and ranks whose progress the test
// sets, stalls or kills. Real sockets on loopback. Used by the tests of rpc only.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/core/error.h"
#include "rpc/coordinator.h"
#include "rpc/worker_agent.h"

namespace spillway::testing {

using std::chrono::milliseconds;
// For what must happen, at once on a machine of ours alone: a bound, not an expectation.
inline constexpr milliseconds kSoon{60000};
inline constexpr double kSoon_s = 60;
// Silence that no busy machine makes, for jobs in which nobody shall be found silent, and a time
// far below it: what ends within that was not ended by a silence or by a rank that did not join.
inline constexpr milliseconds kLongSilence{100000};
inline constexpr double kLongBeforeSilence_s = 50;
inline constexpr char kSecret[] = "0123456789abcdef";

// One stage, n ranks, two layers; legal enough for everything in rpc.
inline Plan sample_plan(int n_ranks) {
  Plan plan;
  plan.model_name = "sample";
  plan.header_hash = 77;
  StagePlan stage;
  stage.layers = {0, 2};
  for (int rank = 0; rank < n_ranks; ++rank) {
    stage.ranks.push_back(rank);
    stage.shares.push_back(1.0 / n_ranks);
    stage.achieved.push_back(1.0 / n_ranks);
    RankPart part;
    part.rank = rank;
    part.tp_index = rank;
    const Range mine = {rank, rank + 1};
    part.layers = {{mine, mine, {32 * rank, 32 * rank + 32}}, {mine, mine, {0, 0}}};
    part.embedding_rows = part.output_rows = {100 * rank, 100 * rank + 100};
    plan.parts.push_back(part);
    plan.ledger.push_back({rank, "host", "weights", "layers 0-1", 1 << 20});
    plan.ledger.push_back({rank, "host", "kv", "", 1 << 19});
  }
  plan.stages = {stage};
  plan.kv = {KvType::kF32, 16, 9, 144};
  plan.prediction.decode_tok_per_s = 25;
  return plan;
}

// Polls until `happened`; false when it does not within kSoon.
template <typename Condition>
bool wait_until(const Condition& happened) {
  const auto end = std::chrono::steady_clock::now() + kSoon;
  while (!happened()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(milliseconds(5));
  }
  return true;
}

// What callbacks said, in order; wait() for the next.
class Sentences {
 public:
  void add(const std::string& sentence) {
    std::lock_guard<std::mutex> lock(mutex_);
    all_.push_back(sentence);
    changed_.notify_all();
  }
  // The first sentence, or "" when none comes in time.
  std::string wait(milliseconds timeout = kSoon) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait_for(lock, timeout, [this] { return !all_.empty(); });
    return all_.empty() ? "" : all_.front();
  }
  size_t count() {
    std::lock_guard<std::mutex> lock(mutex_);
    return all_.size();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> all_;
};

class TestRank {
 public:
  TestRank(const std::string& address, int rank, std::function<void(WorkerOptions&)> tweak = {}) {
    WorkerOptions options;
    options.coordinator = address;
    options.secret = kSecret;
    options.inventory.rank = rank;
    options.inventory.host = "host" + std::to_string(rank);
    options.inventory.pid = 1000 + rank;
    options.inventory.cpu = "Test CPU";
    options.inventory.isa = "scalar";
    options.header_hash = 77;
    options.heartbeat = milliseconds(50);
    options.connect_timeout = kSoon;
    if (tweak) tweak(options);
    progress_.state = "loading";
    agent_ = std::make_unique<WorkerAgent>(
        std::move(options), [this] { return tell(); },
        [this](const std::string& sentence) { faults.add(sentence); });
  }
  ~TestRank() { kill(); }

  std::future<Plan> join() {
    return std::async(std::launch::async, [this] { return agent_->join(); });
  }
  // The text that join() throws; "" when it does not.
  std::string join_error() {
    try {
      agent_->join();
      return "";
    } catch (const Error& error) {
      return error.what();
    }
  }
  void set(const RankProgress& progress) {
    std::lock_guard<std::mutex> lock(mutex_);
    progress_ = progress;
  }
  // No heartbeats from now on, until resume(): as a rank whose process is stopped.
  void stall() { set_stalled(true); }
  void resume() { set_stalled(false); }
  // Gone without a word.
  void kill() {
    resume();
    agent_.reset();
  }
  WorkerAgent& agent() { return *agent_; }

  Sentences faults;

 private:
  RankProgress tell() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return !stalled_; });
    return progress_;
  }
  void set_stalled(bool stalled) {
    std::lock_guard<std::mutex> lock(mutex_);
    stalled_ = stalled;
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool stalled_ = false;
  RankProgress progress_;
  std::unique_ptr<WorkerAgent> agent_;
};

class TestJob {
 public:
  explicit TestJob(int n_ranks, std::function<void(CoordinatorOptions&)> tweak = {},
                   std::function<Plan(const ClusterSpec&)> make_plan = {}) {
    CoordinatorOptions options;
    options.n_ranks = n_ranks;
    options.secret = kSecret;
    options.model = "Sample Model";
    options.join_timeout = kLongSilence;
    options.silence_timeout = kLongSilence;
    if (tweak) tweak(options);
    CoordinatorCallbacks callbacks;
    callbacks.make_plan = [this, make_plan](const ClusterSpec& cluster) {
      planned_with = cluster;
      return make_plan ? make_plan(cluster) : sample_plan(cluster.size());
    };
    callbacks.on_loading = [this](int64_t done, int64_t total) {
      loading.add(std::to_string(done) + "/" + std::to_string(total));
      std::lock_guard<std::mutex> lock(mutex_);
      last_loading_ = {done, total};
    };
    callbacks.on_fault = [this](const std::string& sentence) { faults.add(sentence); };
    coordinator = std::make_unique<Coordinator>(std::move(options), std::move(callbacks));
  }

  TestRank& add(int rank, std::function<void(WorkerOptions&)> tweak = {}) {
    ranks.push_back(std::make_unique<TestRank>(coordinator->address(), rank, std::move(tweak)));
    return *ranks.back();
  }
  // Adds and joins ranks first..n-1.
  void join_all(int n_ranks, int first = 0) {
    std::vector<std::future<Plan>> plans;
    for (int rank = first; rank < n_ranks; ++rank) plans.push_back(add(rank).join());
    for (std::future<Plan>& plan : plans) plan.get();
  }
  std::pair<int64_t, int64_t> last_loading() {
    std::lock_guard<std::mutex> lock(mutex_);
    return last_loading_;
  }
  // Waits until the coordinator says so.
  bool wait_for_state(const std::string& state) {
    return wait_until([&] { return coordinator->status().state == state; });
  }
  bool wait_for_ranks(size_t n) {
    return wait_until([&] { return coordinator->status().ranks.size() >= n; });
  }
  // Everything that the rank has sent so far was read by the coordinator: it reads a stream in its
  // order, and has seen this heartbeat.
  bool wait_for_step(int rank, int64_t step) {
    return wait_until([&] { return coordinator->status().ranks.at(rank).progress.step == step; });
  }

  Sentences faults;
  Sentences loading;
  ClusterSpec planned_with;  // read after a join has returned
  std::unique_ptr<Coordinator> coordinator;
  std::vector<std::unique_ptr<TestRank>> ranks;  // destroyed before the coordinator

 private:
  std::mutex mutex_;
  std::pair<int64_t, int64_t> last_loading_{0, 0};
};

inline RankProgress running(int64_t step, const std::string& waiting_for = "") {
  RankProgress progress;
  progress.state = "running";
  progress.step = step;
  progress.waiting_for = waiting_for;
  return progress;
}

inline bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace spillway::testing

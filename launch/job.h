// Job: the lines that every rank of run, bench and verify goes through, in order: bring up, probe,
// join, then build a plan's house. docs/ARCHITECTURE.md section 3 reads along.
//   Owns what lives as long as the job. Thread: main.
#pragma once

#include <atomic>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "kernels/core/thread_pool.h"
#include "kernels/cpu/ops.h"
#include "launch/bring_up.h"
#include "launch/options.h"
#include "launch/rank_rates.h"
#include "launch/shutdown.h"
#include "launch/supervise.h"
#include "launch/terminal.h"
#include "parallel/mesh.h"
#include "parallel/watchdog.h"
#include "rpc/coordinator.h"
#include "rpc/worker_agent.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/metrics.h"
#include "runtime/io/gguf.h"
#include "runtime/stage/pipeline.h"

namespace spillway {

// A plan made real on this rank.
struct House {
  Plan plan;
  Mesh mesh;
  std::unique_ptr<Pipeline> pipeline;  // nullptr on a rank that the plan does not use
};

class Job {
 public:
  // Steps 1 to 3: MPI, the model's header, the probe, the control plane; then `plan()` is what the
  // coordinator decided. Throws SharedError on every rank when it fails on one.
  Job(const Options& options, WorkerNote& note);
  ~Job();

  const Plan& plan() const { return plan_; }
  const ModelSpec& model() const { return model_; }
  const ClusterSpec& cluster() const { return agent_->cluster(); }
  const Gguf& gguf() const { return *gguf_; }
  World& world() { return world_; }
  Metrics& metrics() { return note_.metrics; }
  Watchdog& watchdog() { return *watchdog_; }
  FaultGate& gate() { return *gate_; }
  const cpu::Exec& exec() const { return exec_; }
  // Bytes that others used on this rank's GPU before the job began; 0 when the driver does not say.
  int64_t gpu_bytes_before() const { return gpu_bytes_before_; }

  // Step 4: mesh, arenas, weights, executors of a plan. Collective over all ranks.
  std::unique_ptr<House> build(const Plan& plan, bool show_progress);
  // Of this process, as in its heartbeats: what the ledger of the last house promises.
  int64_t resident_bytes() const { return spillway::resident_bytes(mapped_bytes_); }
  // What this rank tells with its heartbeats.
  void set_state(const char* state) { state_ = state; }
  // Orderly end, collective; of the house too, which must not outlive it.
  void leave(std::unique_ptr<House> house);
  // An error that all ranks throw alike ends the job, and the front will say it. Collective: when
  // it returns nobody takes another's hanging up for a fault any more.
  void part(const SharedError& error);
  // A step or a peer failed on this rank: the job says so once, with the rank, and this process
  // ends with exit code 1.
  [[noreturn]] void fail(const std::exception& error);
  // What the error says, and for NotFinite which weight of the file is to blame.
  std::string sentence(const std::exception& error) const;

 private:
  void open_model();
  void probe_and_join(const GpuSpec& gpu);
  GpuSpec find_gpu();                          // collective
  void say_warnings(const std::string& mine);  // collective: the front prints all ranks'
  void say_once(const std::string& mine);      // the same, the first one's alone
  void say_of_plan() const;                    // the front, to whoever did not ask for a table
  // The front's address and secret, on every rank.
  std::pair<std::string, std::string> start_coordinator(const JobRates& rates);
  void join(const RankSpec& inventory, const std::string& address, const std::string& secret);
  // What follows is nobody's fault: an error that all share, or the orderly end.
  void quiet_down();
  void guard_spill(const House& house);
  void connect(House& house);  // collective; ends the job when a rank is lost or does not come
  RankProgress progress() const;
  // Whether the user wants to see how the job is laid out and why.
  bool explains() const {
    return options_.show_plan || (options_.verb == Verb::kBench && !options_.json);
  }

  const Options& options_;
  WorkerNote& note_;
  World world_;
  std::unique_ptr<FaultGate> gate_;
  std::unique_ptr<ThreadPool> pool_;
  cpu::Exec exec_;
  std::unique_ptr<Gguf> gguf_;
  ModelSpec model_;
  Plan plan_;
  int64_t gpu_bytes_before_ = 0;
  std::atomic<const char*> state_{"joining"};
  std::atomic<int64_t> loaded_bytes_{0};
  std::atomic<int64_t> load_total_bytes_{0};
  std::atomic<int64_t> mapped_bytes_{0};  // of the last house's spill file
  std::unique_ptr<ProgressBar> bar_;
  std::unique_ptr<Watchdog> watchdog_;
  std::unique_ptr<Coordinator> coordinator_;
  std::unique_ptr<WorkerAgent> agent_;
};

// A job from its first line to its end: what body(job) returns is the exit code of a rank; it ends
// with job.leave(). What it throws ends the job on all ranks: as SharedError it goes on to main.
int run_job(const Options& options, WorkerNote& note, const std::function<int(Job&)>& body);

// What the front of a job computes, its engine's owner's run(). A request that cannot be (a prompt
// that is empty, a model whose logits are no numbers) leaves the house sound: it is said here, and
// all leave in order, with exit code 1.
template <typename Front>
int run_front(const Job& job, Front& front) {
  try {
    front.run();
  } catch (const Error& error) {
    if (!front.sound()) throw;
    std::fprintf(stderr, "spillway: %s\n", job.sentence(error).c_str());
    front.stop();
    return 1;
  }
  return 0;
}

}  // namespace spillway

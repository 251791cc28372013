// WorkerAgent: a rank's end of the control plane (rank 0 has one too). Joins, gets the plan, sends
// heartbeats from a thread of its own, and hears of faults elsewhere.
//   Thread: join(), cluster() and leave() from the main thread; report_fault() from any. Owns two
//   threads. Destroying it without leave() is a death in the coordinator's eyes.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "parallel/cluster_spec.h"
#include "parallel/plan.h"
#include "rpc/job_status.h"

namespace spillway {

struct WorkerOptions {
  std::string coordinator;  // host:port
  std::string secret;
  RankSpec inventory;
  uint64_t header_hash = 0;  // of the model file as this rank sees it
  std::chrono::milliseconds heartbeat{500};
  std::chrono::milliseconds connect_timeout{5000};
};

class WorkerAgent {
 public:
  // progress: this rank's state now; called from the heartbeat thread every `heartbeat` (every
  // 100 ms until it is done with loading); must not wait for the main thread, since a rank
  // whose progress does not return is silent. on_fault: once at most, only after join() has
  // returned and before leave() is called, from a thread of the agent, which it must not destroy:
  // the coordinator named a fault, or is itself gone ("rank 0 (coordinator) at 127.0.0.1:41233 is
  // gone").
  // Throws Error when the system has no threads for a connection.
  WorkerAgent(WorkerOptions options, std::function<RankProgress()> progress,
              std::function<void(const std::string&)> on_fault);
  ~WorkerAgent();

  // Blocks until the coordinator has planned. Throws Error with the coordinator's reason when it
  // rejects (wrong secret, another model file, rank taken, plan impossible), or when it cannot be
  // reached in time. Once only.
  Plan join();
  // The cluster as the coordinator saw it when it planned; valid after join().
  const ClusterSpec& cluster() const;
  // Tells the coordinator of a fault that this rank found (its watchdog, its loader); the job ends
  // within a second, with this sentence unless another rank turns out to be dead. No effect before
  // join(), after leave() or after a fault. Whether it was sent.
  bool report_fault(const std::string& sentence);
  // Orderly end: no fault will be reported for this rank any more. Waits at most 0.5 s for the
  // coordinator's answer.
  void leave();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace spillway

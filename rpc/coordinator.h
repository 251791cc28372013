// Coordinator: the control plane of a job, inside rank 0. Ranks join with their inventory and the
// job's secret; when all are there it plans once and answers each with the plan; then it follows
// loading and heartbeats until the ranks leave. Never on the per-token path.
//   Thread: all methods from any thread. The callbacks below are called from one thread of its own,
//   one at a time; while one runs nobody is found silent, so they should be short. They must not
//   destroy the coordinator. Owns the server. Destruction ends every stream within a second; it
//   waits for a callback that runs.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "parallel/cluster_spec.h"
#include "parallel/plan.h"
#include "rpc/job_status.h"

namespace spillway {

struct CoordinatorOptions {
  std::string listen = "127.0.0.1:0";  // port 0: any free one. Beyond loopback only when told to;
                                       // then the network must be trusted: there is no encryption
  int n_ranks = 1;
  std::string secret;  // not empty; must be equal in every join; never logged, never sent back
  std::string model;   // for status
  std::chrono::milliseconds join_timeout{5000};     // from start until all have joined
  std::chrono::milliseconds silence_timeout{3000};  // between two heartbeats of a rank
  std::chrono::milliseconds report_grace{300};      // a report waits so long for its cause to show
};

struct CoordinatorCallbacks {
  // All ranks are there: make the plan. An Error thrown here rejects every join with its text.
  std::function<Plan(const ClusterSpec&)> make_plan;
  // Bytes loaded by all ranks together, of how many.
  std::function<void(int64_t done_bytes, int64_t total_bytes)> on_loading;
  // Once at most: a rank is missing, silent, dead, reported a fault or opened another model file.
  // The sentence names it. All ranks have been told to abort when this is called. A plan that
  // cannot be made is no fault: all joins throw its text.
  std::function<void(const std::string&)> on_fault;
};

class Coordinator {
 public:
  // Listens at once. Throws Error when the address is bad or taken.
  Coordinator(CoordinatorOptions options, CoordinatorCallbacks callbacks);
  ~Coordinator();

  // "127.0.0.1:41233": where workers join and `spillway status` asks. Numeric; when listening at
  // all addresses, the first one that other hosts can reach.
  std::string address() const;
  // The link rates, probed by all ranks together, known before any rank joins.
  void set_link(const LinkSpec& link, const std::vector<PairSpec>& pairs);
  JobStatus status() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// 32 random bytes as hex.
std::string make_job_secret();

}  // namespace spillway

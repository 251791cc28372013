// Roster: the coordinator's book: who has joined, what each rank last said and when, and the
// sentence that names a rank at fault. Pure bookkeeping with the time passed in; knows no sockets.
// Used by coordinator.cc only.
//   Thread: none of its own; the coordinator's lock protects it.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "parallel/cluster_spec.h"
#include "parallel/plan.h"
#include "rpc/job_status.h"

namespace spillway {

class Roster {
 public:
  using Time = std::chrono::steady_clock::time_point;
  using Milliseconds = std::chrono::milliseconds;

  // Whether a rank may join. `fatal`: the job cannot succeed any more, whoever else joins.
  struct Admission {
    std::string reason;  // empty: welcome
    bool fatal = false;
  };
  // Bytes of all ranks together. known: every rank has told its total.
  struct Loading {
    int64_t done_bytes = 0;
    int64_t total_bytes = 0;
    bool known = false;
    bool finished = false;  // every rank is past loading
  };

  explicit Roster(int n_ranks);

  Admission admit(const RankSpec& spec, uint64_t header_hash, uint32_t protocol, Time now);
  void assign(const Plan& plan, Time now);  // heartbeats are due from now on
  void heartbeat(int rank, const RankProgress& progress, Time now);
  void leave(int rank);
  // The coordinator itself was stopped for so long: nobody's silence counts.
  void forgive(std::chrono::nanoseconds pause);

  bool all_joined() const { return n_joined_ == static_cast<int>(members_.size()); }
  bool all_left() const;
  // What the job does once it has a plan: "ended", "loading", "running", or what the front waits
  // for.
  std::string serving_state() const;
  bool left(int rank) const { return members_.at(rank).left; }
  ClusterSpec cluster(const LinkSpec& link,
                      const std::vector<PairSpec>& pairs) const;  // all_joined() only
  Loading loading() const;
  std::vector<RankStatus> rows(Time now) const;  // of those that have joined

  // "ranks 1 and 3 have not joined within 5.0 s (2 of 4 are here)".
  std::string missing(Milliseconds waited) const;
  // A rank from which nothing was heard for longer than the timeout, if any: the one that is silent
  // longest, with the others that are late.
  std::optional<std::string> silent(Time now, Milliseconds timeout) const;
  // "rank 2 (host a, pid 71) died in step 57, last waiting in all-reduce 3".
  std::string died(int rank) const;
  // A rank's own report, with the ranks that are late, since one of them may be the cause.
  std::string reported(int rank, const std::string& sentence, Time now) const;

 private:
  struct Member {
    bool joined = false;
    bool assigned = false;
    bool left = false;
    RankSpec spec;
    uint64_t header_hash = 0;
    Time heard;
    RankProgress progress;
    bool on_gpu = false;  // as the plan says
    RankStatus placed;    // what the plan says; progress and age unset
  };

  std::string name(int rank) const;
  std::string doing(const Member& member) const;
  std::string late(Time now, int but, const char* verb) const;
  bool expects(const Member& member) const { return member.assigned && !member.left; }

  std::vector<Member> members_;  // by rank
  int n_joined_ = 0;
};

}  // namespace spillway

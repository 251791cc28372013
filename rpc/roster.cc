// See roster.h.
#include "rpc/roster.h"

#include <algorithm>
#include <cstdio>

#include "kernels/core/check.h"
#include "parallel/size_text.h"
#include "rpc/protocol.h"

namespace spillway {
namespace {

// Heartbeats come every 500 ms. A rank that missed more than one is late: not at fault yet, but
// worth naming beside a fault.
constexpr std::chrono::milliseconds kLate{1200};

std::string seconds_text(std::chrono::nanoseconds duration) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f s", std::chrono::duration<double>(duration).count());
  return text;
}

std::string hash_text(uint64_t hash) {
  char text[24];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
  return text;
}

std::string device_text(const RankSpec& spec, bool gpu) {
  if (gpu) return "GPU " + std::to_string(spec.gpu.ordinal) + ", " + spec.gpu.name;
  return spec.cpu + ", " + spec.isa + ", " + count_text(spec.threads, "thread");
}

// "1", "1 and 3", "1, 2 and 3".
std::string list_text(const std::vector<int>& ranks) {
  std::string text;
  for (size_t i = 0; i < ranks.size(); ++i) {
    if (i > 0) text += i + 1 == ranks.size() ? " and " : ", ";
    text += std::to_string(ranks[i]);
  }
  return text;
}

bool past_loading(const std::string& state) {
  return state == "ready" || state == "running" || state == kReadsLine || state == "leaving";
}

}  // namespace

Roster::Roster(int n_ranks) {
  CHECK_GE(n_ranks, 1);
  members_.resize(static_cast<size_t>(n_ranks));
}

std::string Roster::name(int rank) const {
  const Member& member = members_.at(rank);
  return "rank " + std::to_string(rank) + " (host " + member.spec.host + ", pid " +
         std::to_string(member.spec.pid) + ")";
}

// " in step 57, last waiting in all-reduce 3", " while loading".
std::string Roster::doing(const Member& member) const {
  const RankProgress& progress = member.progress;
  std::string text;
  if (!member.assigned) return " before the plan was made";
  if (progress.step > 0 || progress.state == "running") {
    text = " in step " + std::to_string(progress.step);
  } else {
    text = " while " + (progress.state.empty() ? std::string("loading") : progress.state);
  }
  if (!progress.waiting_for.empty()) text += ", last waiting in " + progress.waiting_for;
  return text;
}

Roster::Admission Roster::admit(const RankSpec& spec, uint64_t header_hash, uint32_t protocol,
                                Time now) {
  const int n_ranks = static_cast<int>(members_.size());
  if (spec.rank < 0 || spec.rank >= n_ranks) {
    return {"rank " + std::to_string(spec.rank) + " is out of range: the job has ranks 0 to " +
                std::to_string(n_ranks - 1),
            false};
  }
  Member& member = members_[spec.rank];
  if (member.joined) {
    return {"rank " + std::to_string(spec.rank) + " (host " + spec.host + ", pid " +
                std::to_string(spec.pid) + ") is taken: " + name(spec.rank) + " has joined already",
            false};
  }
  member.spec = spec;
  if (protocol != kProtocol) {
    return {name(spec.rank) + " speaks protocol " + std::to_string(protocol) +
                ", the coordinator speaks " + std::to_string(kProtocol) +
                ": use the same build of spillway on all hosts",
            true};
  }
  for (int other = 0; other < n_ranks; ++other) {
    const Member& here = members_[other];
    if (!here.joined || here.header_hash == header_hash) continue;
    return {name(spec.rank) + " and " + name(other) + " see different model files (headers " +
                hash_text(header_hash) + " and " + hash_text(here.header_hash) +
                "): every rank must open the same file",
            true};
  }
  member.joined = true;
  member.header_hash = header_hash;
  member.heard = now;
  member.progress.state = "joining";
  ++n_joined_;
  return {};
}

void Roster::assign(const Plan& plan, Time now) {
  CHECK(all_joined());
  for (size_t rank = 0; rank < members_.size(); ++rank) {
    Member& member = members_[rank];
    member.assigned = true;
    member.heard = now;
    member.progress.state = "loading";
    if (rank >= plan.parts.size()) continue;  // more ranks than the plan uses: idle
    const RankPart& part = plan.parts[rank];
    const StagePlan& stage = plan.stages.at(part.stage);
    member.placed.stage = part.stage;
    member.placed.tp_index = part.tp_index;
    member.placed.first_layer = stage.layers.begin;
    member.placed.n_layers = stage.layers.size();
    if (part.tp_index >= 0 && part.tp_index < static_cast<int>(stage.achieved.size())) {
      member.placed.share = stage.achieved[part.tp_index];
    }
    member.on_gpu = part.gpu;
    member.placed.planned_bytes = plan.rank_bytes(static_cast<int>(rank));
  }
}

void Roster::heartbeat(int rank, const RankProgress& progress, Time now) {
  members_.at(rank).progress = progress;
  members_.at(rank).heard = now;
}

void Roster::leave(int rank) {
  members_.at(rank).left = true;
  members_.at(rank).progress.state = "left";
  members_.at(rank).progress.waiting_for.clear();
}

void Roster::forgive(std::chrono::nanoseconds pause) {
  for (Member& member : members_) {
    member.heard += std::chrono::duration_cast<Time::duration>(pause);
  }
}

bool Roster::all_left() const {
  return std::all_of(members_.begin(), members_.end(), [](const Member& m) { return m.left; });
}

std::string Roster::serving_state() const {
  if (all_left()) return "ended";
  const std::string& front = members_.front().progress.state;
  if (front == kReadsPrompt) return "waiting for the prompt";
  if (!loading().finished) return "loading";
  return front == kReadsLine ? "waiting for a line of the chat" : "running";
}

ClusterSpec Roster::cluster(const LinkSpec& link, const std::vector<PairSpec>& pairs) const {
  CHECK(all_joined());
  ClusterSpec cluster;
  for (const Member& member : members_) cluster.ranks.push_back(member.spec);
  cluster.link = link;
  cluster.pairs = pairs;
  return cluster;
}

Roster::Loading Roster::loading() const {
  Loading sum;
  sum.known = sum.finished = true;
  for (const Member& member : members_) {
    const RankProgress& progress = member.progress;
    const bool past = member.left || past_loading(progress.state);
    sum.done_bytes += progress.loaded_bytes;
    sum.total_bytes += progress.load_total_bytes;
    sum.known = sum.known && (progress.load_total_bytes > 0 || past);
    sum.finished = sum.finished && past;
  }
  return sum;
}

std::vector<RankStatus> Roster::rows(Time now) const {
  std::vector<RankStatus> rows;
  for (const Member& member : members_) {
    if (!member.joined) continue;
    RankStatus row = member.placed;
    row.rank = member.spec.rank;
    row.host = member.spec.host;
    row.pid = member.spec.pid;
    row.device = device_text(member.spec, member.on_gpu);
    row.heartbeat_age_s = std::max(0.0, std::chrono::duration<double>(now - member.heard).count());
    row.progress = member.progress;
    rows.push_back(row);
  }
  return rows;
}

std::string Roster::missing(Milliseconds waited) const {
  std::vector<int> ranks;
  for (size_t rank = 0; rank < members_.size(); ++rank) {
    if (!members_[rank].joined) ranks.push_back(static_cast<int>(rank));
  }
  return (ranks.size() == 1 ? "rank " : "ranks ") + list_text(ranks) +
         (ranks.size() == 1 ? " has" : " have") + " not joined within " + seconds_text(waited) +
         " (" + std::to_string(n_joined_) + " of " + std::to_string(members_.size()) +
         (n_joined_ == 1 ? " is" : " are") + " here)";
}

// "; rank 4 (host a, pid 7) <verb> 2.1 s in step 9", for every late rank but one.
std::string Roster::late(Time now, int but, const char* verb) const {
  std::string text;
  for (size_t rank = 0; rank < members_.size(); ++rank) {
    const Member& member = members_[rank];
    if (static_cast<int>(rank) == but || !expects(member) || now - member.heard <= kLate) continue;
    text += "; " + name(static_cast<int>(rank)) + " " + verb + " " +
            seconds_text(now - member.heard) + doing(member);
  }
  return text;
}

std::optional<std::string> Roster::silent(Time now, Milliseconds timeout) const {
  int worst = -1;
  for (size_t rank = 0; rank < members_.size(); ++rank) {
    const Member& member = members_[rank];
    if (!expects(member) || now - member.heard <= timeout) continue;
    if (worst < 0 || member.heard < members_[worst].heard) worst = static_cast<int>(rank);
  }
  if (worst < 0) return std::nullopt;
  const Member& member = members_[worst];
  return name(worst) + " silent for " + seconds_text(now - member.heard) + doing(member) +
         late(now, worst, "is silent too, for");
}

std::string Roster::died(int rank) const { return name(rank) + " died" + doing(members_.at(rank)); }

std::string Roster::reported(int rank, const std::string& sentence, Time now) const {
  return name(rank) + " reports: " + sentence + late(now, rank, "has been silent for");
}

}  // namespace spillway

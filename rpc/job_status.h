// JobStatus: what `spillway status` shows: a plain copy of the coordinator's view of the job.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace spillway {

// States in which the front waits for a person.
inline constexpr const char* kReadsPrompt = "reading prompt";
inline constexpr const char* kReadsLine = "reading line";

// What a rank tells about itself with every heartbeat.
struct RankProgress {
  std::string state;  // "joining", "waiting", kReadsPrompt, "loading", "connecting", "ready",
                      // "running", kReadsLine, "leaving"
  int64_t loaded_bytes = 0;
  int64_t load_total_bytes = 0;
  int64_t step = 0;             // of the engine
  std::string waiting_for;      // "all-reduce 57", or empty
  int64_t memory_bytes = 0;     // resident, as the system counts it
  double decode_tok_per_s = 0;  // front only: of the last seconds; 0 elsewhere
  double prefill_tok_per_s = 0;
  int64_t tokens_done = 0;  // front only
};

struct RankStatus {
  int rank = 0;
  std::string host;
  int64_t pid = 0;
  std::string device;  // "AMD EPYC, avx512-vnni, 1 thread"
  int stage = -1;
  int tp_index = -1;
  int64_t first_layer = 0, n_layers = 0;
  double share = 0;           // of the stage, achieved
  int64_t planned_bytes = 0;  // the ledger's
  double heartbeat_age_s = 0;
  RankProgress progress;
};

struct JobStatus {
  std::string model;
  std::string plan_title;
  std::string state;  // "waiting for ranks", "planning", "waiting for the prompt", "loading",
                      // "running", "waiting for a line of the chat", "failed: …"
  double uptime_s = 0;
  double predicted_tok_per_s = 0;
  std::vector<RankStatus> ranks;
};

// Asks a running job's coordinator. Throws Error (bad address; no answer within timeout_s; not a
// coordinator; wrong secret when asked from beyond loopback).
JobStatus fetch_status(const std::string& address, const std::string& secret, double timeout_s);
// As a table for a terminal: two lines about the job, then one a rank, in 80 to 100 columns. "part"
// is stage/TP index, "heard" the age of the last heartbeat.
std::string status_table(const JobStatus& status);

}  // namespace spillway

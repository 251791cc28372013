// Options: the command line as a struct. parse_options never ignores anything: an unknown or
// contradictory flag is an Error that says what to do. --help texts live in options.cc.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "launch/options_text.h"
#include "parallel/comm_choice.h"
#include "parallel/planner.h"
#include "runtime/engine/sampler.h"
#include "runtime/stage/hidden_check.h"

namespace spillway {

enum class Verb {
  kNone,
  kRun,
  kInspect,
  kPlan,
  kVerify,
  kBench,
  kSweep,
  kStatus,
  kPerplexity,
  kTokenize,
  kTemplate,
  kQuantize,
  kProbe
};

// spillway quantize
struct QuantizeOptions {
  std::string input;
  std::string output;
  std::string type;
  bool force = false;
  bool dry_run = false;
  bool pure = false;
  std::string output_type;     // "": the mix's choice
  std::string embedding_type;  // "": the mix's choice
};

struct SweepOptions {
  int offload_steps = 0;  // 0: not --offload
  int64_t best = 6;
  int64_t controls = 3;
  std::vector<double> spilled = {0};
  std::vector<std::string> kv_types = {"f16"};
  bool uneven = false;
  int rounds = 0;  // 0: by what loading takes (sweep_rounds.h)
  std::string csv_file, svg_file;
};

struct Options {
  Verb verb = Verb::kNone;
  std::string help;                       // not empty: print it and exit 0
  std::vector<std::string> command_line;  // argv, its program as an absolute path

  std::string model;
  std::optional<std::string> prompt;
  bool chat = false;
  std::string system;
  int64_t new_tokens = 256;
  int64_t context = 0;    // 0: the planner's choice
  int64_t step_rows = 0;  // tokens a step; 0: by device
  int threads = 0;        // 0: what this rank's cores give
  SamplingParams sampling;
  bool seed_given = false;
  bool ignore_eos = false;

  int tp = 0;
  int pp = 0;
  std::vector<StagePin> split;
  std::vector<PlacePin> places;
  std::vector<int64_t> layers;
  std::vector<double> shares;
  std::vector<int> order;
  int64_t gpu_layers = -1;
  std::vector<Budget> gpu_memory;
  std::vector<Budget> host_memory;
  Objective objective = Objective::kLatency;
  KvType least_kv = KvType::kF16;
  std::string plan_file;     // --plan, whose pins have become flags
  std::string spill_folder;  // --spill-dir
  int64_t cpu_rows = 0;      // --cpu-rows; 0: StepLimits' own
  KvType kv_type = KvType::kF16;
  DeviceChoice device = DeviceChoice::kAuto;
  std::vector<DeviceChoice> devices;  // --device with a list: by rank; empty: `device` for all
  bool share_gpus = false;
  CommChoice comm = CommChoice::kAuto;
  HiddenCheck check_hidden = HiddenCheck::kOff;

  bool show_plan = false;
  bool quiet = false;
  bool json = false;
  bool toml = false;                   // plan
  std::string svg;                     // plan: a file
  std::string listen = "127.0.0.1:0";  // --coordinator
  double step_timeout_s = 3;           // --step-timeout, beyond 10 times the predicted time
  std::string isa;                     // --isa: "", "scalar", "avx2", "avx512"

  std::string cluster;      // plan: a cluster file, or the name of one that came with the program
  std::string save;         // probe: where the cluster file goes; "": nowhere
  bool refresh = false;     // probe: measures although rates are kept
  int ranks = 0;            // plan, verify
  bool all_splits = false;  // verify
  int64_t verify_tokens = 64;
  double tolerance = 1e-3;  // verify: greatest logit difference
  bool tolerance_given = false;
  int64_t bench_prompt = 512;
  int64_t bench_new = 128;
  int64_t bench_depth = 0;      // tokens in each sequence's cache before decode
  int64_t bench_sequences = 1;  // decoded at once
  int repetitions = 3;
  SweepOptions sweep;
  bool profile = false;  // bench: where the time of traced steps goes, by term

  std::string text_file;    // perplexity
  int64_t stride = 0;       // 0: chunks side by side, their second halves scored
  int64_t most_chunks = 0;  // 0: all
  QuantizeOptions quantize;

  std::string address;  // status
  std::string secret;   // status
  TextOptions text;     // tokenize, template
};

// argv as main gets it. Throws Error; returns help text in Options::help for --help.
Options parse_options(int argc, const char* const* argv);

// The ranks that --ranks names or --split, --tp and --pp need, or --device lists; at least 1.
int ranks_named(const Options& options);

// The planner's request of these options; limits as the verb needs them.
PlanRequest plan_request(const Options& options);

}  // namespace spillway

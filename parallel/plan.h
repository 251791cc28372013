// Plan: which rank holds which part of which layer, the ledger of every allocation, the predicted
// speed. Pure data with pure functions: the same on every rank, checked by its fingerprint.
// Invariants (check_plan): stages cover the layers in order; within a layer the ranks of its stage
// cover heads, ff columns and, on the first and last stage, the vocabulary, without gaps; query
// heads lie on the rank that holds their KV head (KV heads may be on several ranks); the ranks of a
// stage all compute on GPUs or all on CPUs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/core/int_math.h"
#include "kernels/core/kv_view.h"
#include "parallel/cluster_spec.h"
#include "parallel/model_spec.h"
#include "parallel/placement.h"

namespace spillway {

// What one rank holds of one layer. Ranges may be empty.
struct LayerPart {
  Range heads;     // query heads
  Range kv_heads;  // the KV heads that they read
  Range ff;        // rows of gate and up, columns of down; cut on down's quant blocks
  Place attention = Place::kResident;  // where the halves' matrices lie
  Place feed_forward = Place::kResident;
  Range ff_on_cpu = {};  // of ff, at its front: kCpu all, kHybrid the CPU's columns, else none
  bool operator==(const LayerPart&) const = default;
};

struct RankPart {
  int rank = 0;  // of the job
  int stage = 0;
  int tp_index = 0;               // within the stage
  std::vector<LayerPart> layers;  // of the stage, in order
  Range embedding_rows;           // vocabulary rows on the first stage, else empty
  Range output_rows;              // vocabulary rows on the last stage, else empty
  bool gpu = false;               // computes on its GPU; all ranks of a stage or none
};

struct StagePlan {
  Range layers;
  std::vector<int> ranks;        // in TP order
  std::vector<double> shares;    // requested, same order, sum 1
  std::vector<double> achieved;  // share of the stage's layer weights in bytes, same order
};

// Sizes of everything that is fixed at start.
struct StepLimits {
  int64_t max_rows = 512;        // tokens a step: a prefill chunk, or one a sequence in decode
  int64_t max_sequences = 8;     // sequences at once
  int64_t max_logit_rows = 8;    // rows of a step whose logits are wanted
  int64_t max_candidates = 256;  // of a row, unless all are asked for
  int64_t max_wanted = 256;      // tokens a row whose logits are wanted whatever their rank
  bool all_logits = false;       // a step may ask for whole rows of logits
  int64_t max_cpu_rows = 8;      // rows up to which halves placed on the CPU are multiplied there
  bool operator==(const StepLimits&) const = default;
};

struct KvPlan {
  KvType type = KvType::kF16;
  int64_t page_tokens = 32;
  int64_t n_pages = 0;  // the same on all ranks
  int64_t context = 0;  // tokens a sequence may have
};

struct LedgerLine {
  int rank = 0;
  std::string place;   // "host", "gpu" (the rank's), or "disk" (its spill file)
  std::string name;    // "weights", "kv", "activations", "program", …: what a table groups by
  std::string detail;  // "layers 0-14 attention"
  int64_t bytes = 0;
};

// The most that a rank may take of a memory: budget.h.
struct RankBudget {
  int64_t gpu_bytes = 0;
  int64_t host_bytes = 0;
  bool gpu_given = false;  // by the user; else what is free, less a margin
  bool host_given = false;
  // What the user asked for where less is free, so that it is not given; 0: all that was asked for.
  int64_t gpu_asked_bytes = 0;
  int64_t host_asked_bytes = 0;
  bool operator==(const RankBudget&) const = default;
};

// Predicted milliseconds of one decode step at batch 1, by term, over the whole job. What devices
// wait for spilled weights is told apart from what they multiply meanwhile.
struct Prediction {
  double matrix_ms = 0;
  double attention_ms = 0;
  double launch_ms = 0;  // of a GPU's kernels, beyond the bytes that they read; a CPU's other ops
  double collective_ms = 0;
  double hop_ms = 0;
  double cpu_ms = 0;   // waits for halves on the CPU beside a GPU
  double bus_ms = 0;   // waits for streamed halves
  double disk_ms = 0;  // waits for halves from the disk
  double total_ms = 0;
  double decode_tok_per_s = 0;
  double prefill_tok_per_s = 0;
  double sequences_tok_per_s = 0;  // decode of limits.max_sequences together, stages in turns
  bool measured_cluster = false;
};

struct Plan {
  std::string model_name;
  uint64_t header_hash = 0;
  std::vector<StagePlan> stages;
  std::vector<RankPart> parts;  // parts[i].rank == i
  StepLimits limits;
  KvPlan kv;
  std::vector<LedgerLine> ledger;
  std::vector<RankBudget> budgets;  // by rank; empty: nothing is known
  Prediction prediction;

  int n_ranks() const { return static_cast<int>(parts.size()); }
  int last_stage() const { return static_cast<int>(stages.size()) - 1; }
  // Whether the ranks of this stage, or any rank, compute on GPUs.
  bool on_gpu(const StagePlan& stage) const {
    return parts[static_cast<size_t>(stage.ranks.front())].gpu;
  }
  bool uses_gpu() const;
  // All that this rank allocates, in bytes; with `name` or `place` only those lines.
  int64_t rank_bytes(int rank, const std::string& name = "", const std::string& place = "") const;
};

// Whether two ranks of one stage hold parts of the same sizes in the same places: what the one
// takes of its memory and its time, the other does of an equal device's.
bool same_size(const RankPart& a, const RankPart& b);
// Tokens in the cache for which `prediction` is made: 512, or the plan's context if that is less.
int64_t predicted_context(const Plan& plan);
// FNV-1a over everything that must be equal on all ranks (not the prediction).
uint64_t plan_fingerprint(const Plan& plan);
// Breaks of the invariants above, one sentence each; empty when the plan is sound.
std::vector<std::string> check_plan(const Plan& plan, const ModelSpec& model);
// "TP2 (2:1) x PP2, layers 15+15": one line for tables and errors.
std::string plan_title(const Plan& plan);
// The table that a person reads before anything is allocated. The cluster is as measured.
std::string plan_table(const Plan& plan, const ModelSpec& model, const ClusterSpec& measured);

}  // namespace spillway

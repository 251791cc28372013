// The planner: (ModelSpec, ClusterSpec, request) -> Plan. Pure; runs anywhere.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "parallel/budget.h"
#include "parallel/plan.h"

namespace spillway {

// A pipeline stage as the user pins it: `--split 20@2:1+10@1` is 20 layers on two ranks with
// shares 2:1, then 10 layers on one rank.
struct StagePin {
  int64_t n_layers = 0;        // 0: in proportion to the stage's shares
  std::vector<double> shares;  // one a rank, each > 0
};

// Where a rank computes. kAuto: on its GPU when all ranks of its stage have one and these hold the
// stage's parts, else on the CPU.
enum class DeviceChoice { kAuto, kCpu, kGpu };

// What the best plan is: the one with the shortest decode step at batch 1; the one that reads and
// writes most tokens a second with limits.max_sequences sequences at once, stages working in turns;
// or the one that holds the longest context.
enum class Objective { kLatency, kThroughput, kContext };
inline constexpr int kObjectives = 3;
const char* objective_name(Objective objective);

struct PlanRequest {
  int tp = 0;                   // 0: free
  int pp = 0;                   // 0: free
  std::vector<StagePin> split;  // empty: from tp and pp, or the best found
  int64_t context = 0;          // tokens; 0: the model's, at most 4096
  KvType kv_type = KvType::kF16;
  StepLimits limits;
  DeviceChoice device = DeviceChoice::kAuto;
  std::vector<DeviceChoice> devices;  // by rank, one each; empty: `device` for all
  bool share_gpus = false;            // several ranks may compute on one GPU
  std::vector<PlacePin> places;       // --place
  int64_t gpu_rows = 0;               // tokens a step when the plan uses a GPU; 0: limits.max_rows
  std::vector<int64_t> layers;        // --layers, by stage; empty: free
  std::vector<double> shares;         // -ts, by rank, each > 0; empty: by speed
  std::vector<int> order;             // --order: the ranks as the stages take them; empty: free
  int64_t gpu_layers = -1;            // -ngl: so many, the last ones, lie on GPUs; -1: free
  std::vector<Budget> gpu_memory;     // --gpu-memory, budget.h
  std::vector<Budget> host_memory;    // --host-memory
  Objective objective = Objective::kLatency;
  // --kv-least: the cache may become as small as this where kv_type does not fit, or for a longer
  // context.
  KvType least_kv = KvType::kF16;
  bool choose_cpu_rows = false;  // limits.max_cpu_rows by the rates
  bool choose_gpu_rows = false;  // fewer than gpu_rows where that leaves memory for weights

  DeviceChoice device_of(int rank) const {
    return devices.empty() ? device : devices[static_cast<size_t>(rank)];
  }
};

// Throws Error unless `devices` is empty or has one a rank.
void check_device_list(const std::vector<DeviceChoice>& devices, int n_ranks);
// "gpu,gpu,cpu"
std::string device_list_text(const std::vector<DeviceChoice>& devices);
// Whether some stage of the split has ranks that must compute on the CPU and ranks that must on
// GPUs, which no plan can do.
bool mixes_devices(const std::vector<StagePin>& split, const PlanRequest& request);

// Parses `--split`: stages joined by "+", a stage is [LAYERS@]SHARE[:SHARE...]. Throws Error that
// shows the place and an example.
std::vector<StagePin> parse_split(const std::string& text);
std::string split_text(const std::vector<StagePin>& split);

// Throws Error when the request contradicts itself, the number of ranks or the model (more stages
// than layers, layers that do not add up), when several ranks have one GPU unless share_gpus, or
// when a rank's memory does not hold its part: with the reason and the nearest thing that is
// possible. Every stage computes on GPUs or on CPUs as a whole. Where the split is free, layers and
// shares follow the ranks' speed; in a plan with GPUs they move to where there is memory when some
// rank has too little.
Plan make_plan(const ModelSpec& model, const ClusterSpec& measured, const PlanRequest& request);

// The same, with the other plans that were laid out and fit, by the objective; their ledgers are
// sums (ledger.h).
struct Planned {
  Plan plan;
  std::vector<Plan> others;
};
Planned plan_and_others(const ModelSpec& model, const ClusterSpec& measured,
                        const PlanRequest& request);

// Every legal split of exactly n ranks into stages of TP degrees, in a fixed order (TP n first):
// the compositions of n. With uneven: also each of two or more ranks with shares 2:1:…:1.
std::vector<std::vector<StagePin>> all_splits(const ModelSpec& model, int n_ranks, bool uneven);

}  // namespace spillway

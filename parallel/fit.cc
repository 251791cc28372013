// See fit.h.
#include "parallel/fit.h"

#include <algorithm>
#include <string>
#include <utility>

#include "parallel/cost.h"
#include "parallel/gpu_ledger.h"
#include "parallel/shortage.h"
#include "parallel/spill_search.h"

namespace spillway {
namespace {

// Times that layers or shares are moved to where there is memory: each names one stage at least
// that is too full, and estimates miss by a layer.
constexpr int kMoves = 16;
// Times that a spill is made greater by what it missed, and by twice as much every time: what
// halves leave beyond the need may hide a miss.
constexpr int kSpills = 5;
// Of so few ranks every choice of stages on CPUs is laid out.
constexpr int kAllDevices = 3;
// Stages that go to CPUs one at a time.
constexpr size_t kFewStages = 4;

// What the worst rank of a stage lacks where its weights lie.
Shortage stage_shortage(const Plan& plan, const Lacks& lacks, const StagePlan& stage) {
  Shortage worst = {stage.ranks[0], "", INT64_MIN};
  for (const int rank : stage.ranks) {
    const RankPart& part = plan.parts[static_cast<size_t>(rank)];
    const int64_t lack = lacks.at_home(part);
    if (lack > worst.bytes) worst = {rank, place_of(part), lack};
  }
  return worst;
}

// Shares of a stage's ranks by their budgets; the stage's speed remains.
bool share_by_memory(Choices& choices, const Plan& plan, const StagePlan& stage) {
  const char* place = plan.on_gpu(stage) ? "gpu" : "host";
  double speed = 0;
  double memory = 0;
  std::vector<double> wanted;
  for (const int rank : stage.ranks) {
    wanted.push_back(static_cast<double>(budget_bytes(plan, rank, place)));
    if (wanted.back() <= 0) return false;
    memory += wanted.back();
    speed += choices.speeds[static_cast<size_t>(rank)];
  }
  bool changed = false;
  for (size_t i = 0; i < wanted.size(); ++i) {
    double& mine = choices.speeds[static_cast<size_t>(stage.ranks[i])];
    const double now = speed * wanted[i] / memory;
    changed = changed || now > mine * 1.001 || mine > now * 1.001;
    mine = now;
  }
  return changed;
}

// Moves shares, then layers, away from stages that lack memory. False: nothing is left to move.
bool make_room(Choices& choices, const Plan& plan) {
  bool moved = false;
  const Lacks lacks = lacks_of(plan);
  for (size_t s = 0; s < plan.stages.size(); ++s) {
    const StagePlan& stage = plan.stages[s];
    const Shortage lack = stage_shortage(plan, lacks, stage);
    if (lack.bytes <= 0) continue;
    if (stage.ranks.size() > 1 && share_by_memory(choices, plan, stage)) {
      moved = true;
      continue;
    }
    const int64_t layer_bytes = std::max<int64_t>(
        1, (plan.rank_bytes(lack.rank, "weights") + plan.rank_bytes(lack.rank, "kv")) /
               stage.layers.size());
    const int64_t fewer =
        std::max<int64_t>(1, stage.layers.size() - div_up(lack.bytes, layer_bytes));
    moved = moved || fewer < stage.layers.size();
    choices.most_layers[s] = fewer;
  }
  int64_t room = 0;
  for (const int64_t most : choices.most_layers) room += most;
  return moved && room >= plan.stages.back().layers.end;
}

// All memory together is too little: nothing is gained by moving.
bool hopeless(const Plan& plan) {
  const Lacks lacks = lacks_of(plan);
  int64_t lack = 0;
  for (const RankPart& part : plan.parts) lack += lacks.at_home(part);
  return lack > 0;
}

Choices by_speed(const Candidate& candidate, const std::vector<bool>& on_gpu,
                 const PlanTask& task) {
  Choices choices;
  choices.on_gpu = on_gpu;
  choices.speeds = rank_speeds(candidate, on_gpu, task);
  choices.free_speeds = task.request.shares.empty();
  choices.most_layers.assign(candidate.stages.size(), task.model.n_layers);
  return choices;
}

bool lacks_host_memory_of_cpus(const Plan& plan) {
  const Lacks lacks = lacks_of(plan);
  return std::any_of(plan.parts.begin(), plan.parts.end(),
                     [&](const RankPart& part) { return !part.gpu && lacks.at_home(part) > 0; });
}

// With what stages on CPUs lack of host memory on the disk.
Plan with_disk(const Candidate& candidate, Choices choices, const PlanTask& task) {
  const Plan bare = lay_out_with(candidate, choices, task);
  std::vector<int64_t> extra(candidate.stages.size(), 0);
  Plan plan = bare;
  for (int i = 0; i < kSpills && lacks_host_memory_of_cpus(plan); ++i) {
    choices.spills = disk_pins(bare, task.model, task.request.places, extra);
    plan = lay_out_with(candidate, choices, task);
    const Lacks lacks = lacks_of(plan);
    for (const RankPart& part : plan.parts) {
      const int64_t lack = part.gpu ? 0 : lacks.at_home(part);
      extra[static_cast<size_t>(part.stage)] += std::max<int64_t>(0, lack) << i;
    }
  }
  return plan;
}

// By speed; where the candidate is free and that lacks memory of a plan with GPUs, by memory if
// that is enough. (Jobs of CPUs alone say what is missing: their memory is one pool a host.)
Plan lay_out_resident(const Candidate& candidate, const std::vector<bool>& on_gpu,
                      const PlanTask& task) {
  Choices choices = by_speed(candidate, on_gpu, task);
  Plan first = lay_out_with(candidate, choices, task);
  if (task.disk_for_cpus && lacks_host_memory_of_cpus(first)) {
    return with_disk(candidate, choices, task);
  }
  const bool free = candidate.free_shares && task.request.shares.empty() && first.uses_gpu();
  if (!free || shortage(first).bytes <= 0 || hopeless(first)) return first;
  Plan plan = first;
  for (int i = 0; i < kMoves && make_room(choices, plan); ++i) {
    plan = lay_out_with(candidate, choices, task);
    if (shortage(plan).bytes <= 0) return plan;
  }
  return first;
}

// Stages and, within them, ranks take parts as their memory is: what is too much for all of them
// together is spread evenly. Only where all compute on GPUs, whose memory alone decides.
void weigh_by_memory(Choices& choices, const Candidate& candidate, const Plan& plan,
                     const PlanTask& task) {
  if (!candidate.free_shares || !task.request.shares.empty()) return;
  if (!std::all_of(choices.on_gpu.begin(), choices.on_gpu.end(), [](bool gpu) { return gpu; })) {
    return;
  }
  for (const RankPart& part : plan.parts) {
    // What is there whatever the rank's share.
    const int64_t fixed = plan.rank_bytes(part.rank, "activations", "gpu") +
                          plan.rank_bytes(part.rank, "program", "gpu");
    const int64_t room = std::max<int64_t>(budget_bytes(plan, part.rank, "gpu") - fixed, 1 << 20);
    choices.speeds[static_cast<size_t>(part.rank)] = static_cast<double>(room);
  }
}

// With what the GPUs lack spilled that way. bare: the plan of these choices.
Plan lay_out_spilled(const Candidate& candidate, const Plan& bare, Choices choices,
                     const PlanTask& task, SpillWay way) {
  std::vector<int64_t> extra(candidate.stages.size(), 0);
  Plan plan;
  for (int i = 0; i < kSpills; ++i) {
    choices.spills = spill_pins(bare, task.model, task.cluster, task.request.places, way, extra);
    plan = lay_out_with(candidate, choices, task);
    bool enough = true;
    const Lacks lacks = lacks_of(plan);
    for (size_t s = 0; s < extra.size(); ++s) {
      int64_t lack = 0;
      for (const int rank : plan.stages[s].ranks) {
        if (!plan.on_gpu(plan.stages[s])) continue;
        lack = std::max(lack, lacks.gpu[static_cast<size_t>(rank)]);
      }
      extra[s] += lack << i;
      enough = enough && lack <= 0;
    }
    if (enough) break;
  }
  return plan;
}

// Of the stages on GPUs that the request does not insist on, the one that lacks most of their
// memory; n_stages: none lacks any.
size_t overfull_stage(const Plan& plan, const std::vector<bool>& forced) {
  size_t worst = plan.stages.size();
  int64_t most = 0;
  const Lacks lacks = lacks_of(plan);
  for (size_t s = 0; s < plan.stages.size(); ++s) {
    if (forced[s] || !plan.on_gpu(plan.stages[s])) continue;
    const int64_t lack = stage_shortage(plan, lacks, plan.stages[s]).bytes;
    if (lack <= most) continue;
    most = lack;
    worst = s;
  }
  return worst;
}

bool lacks_gpu_memory(const Plan& plan) {
  const Lacks lacks = lacks_of(plan);
  return std::any_of(plan.parts.begin(), plan.parts.end(),
                     [&](const RankPart& part) { return part.gpu && lacks.at_home(part) > 0; });
}

bool has_spilled(const Plan& plan) {
  return std::any_of(plan.parts.begin(), plan.parts.end(), [](const RankPart& part) {
    return part.gpu && std::any_of(part.layers.begin(), part.layers.end(), [](const auto& layer) {
             return layer.attention != Place::kResident || layer.feed_forward != Place::kResident;
           });
  });
}

// Which stages compute on GPUs.
struct Devices {
  std::vector<bool> on_gpu;
  std::vector<bool> forced;  // the request insists on it
  bool possible() const {
    for (size_t s = 0; s < forced.size(); ++s) {
      if (forced[s] && !on_gpu[s]) return false;
    }
    return true;
  }
};

// On all GPUs that may be used.
Devices devices_of(const Candidate& candidate, const PlanTask& task) {
  const size_t n_stages = candidate.stages.size();
  Devices out;
  out.on_gpu.assign(n_stages, gpu_obstacle(task.model).empty());
  out.forced.assign(n_stages, false);
  const std::vector<size_t> stages = stages_of(candidate);
  for (size_t r = 0; r < stages.size(); ++r) {
    const DeviceChoice device = task.request.device_of(static_cast<int>(r));
    const bool has = task.cluster.ranks[r].gpu.present();
    if (device == DeviceChoice::kGpu) out.forced[stages[r]] = true;
    if (device == DeviceChoice::kCpu || !has) out.on_gpu[stages[r]] = false;
  }
  return out;
}

// Resident on these devices, and where that lacks a GPU's memory spilled in each of these ways.
// Returns whether `take` said that it is enough, or nothing was lacking.
template <typename Take>
bool layouts_on(const Candidate& candidate, const std::vector<bool>& on_gpu, const PlanTask& task,
                std::span<const SpillWay> ways, const Take& take) {
  const Plan plan = lay_out_resident(candidate, on_gpu, task);
  if (take(plan) || !lacks_gpu_memory(plan)) return true;
  Choices choices = by_speed(candidate, on_gpu, task);
  weigh_by_memory(choices, candidate, plan, task);
  const Plan bare = lay_out_with(candidate, choices, task);
  for (const SpillWay way : ways) {
    const Plan spilled = lay_out_spilled(candidate, bare, choices, task, way);
    if (has_spilled(spilled) && take(spilled)) return true;
  }
  return false;
}

// Stages that lack memory go to CPUs instead, one by one; of many as many as lack it at a time:
// each turn is another layout.
template <typename Take>
void layouts_with_fewer_gpus(const Candidate& candidate, Devices devices, const PlanTask& task,
                             const Take& take) {
  const size_t n_stages = candidate.stages.size();
  Plan plan = lay_out_resident(candidate, devices.on_gpu, task);
  size_t overfull = overfull_stage(plan, devices.forced);
  while (overfull != n_stages) {
    devices.on_gpu[overfull] = false;
    const Lacks lacks = lacks_of(plan);
    for (size_t s = 0; n_stages > kFewStages && s < n_stages; ++s) {
      if (devices.forced[s]) continue;
      if (stage_shortage(plan, lacks, plan.stages[s]).bytes > 0) devices.on_gpu[s] = false;
    }
    plan = lay_out_resident(candidate, devices.on_gpu, task);
    overfull = overfull_stage(plan, devices.forced);
  }
  if (!lacks_gpu_memory(plan)) take(plan);
}

// Makes the plans of lay_out in their order and hands each to `take`, until that says it is enough.
template <typename Take>
void each_layout(const Candidate& candidate, const PlanTask& task, std::span<const SpillWay> ways,
                 const Take& take) {
  const Devices all = devices_of(candidate, task);
  if (!all.possible() || layouts_on(candidate, all.on_gpu, task, ways, take)) return;
  // Unless the user placed halves beside a GPU.
  const auto& pins = task.request.places;
  if (std::any_of(pins.begin(), pins.end(),
                  [](const PlacePin& pin) { return in_host_memory(pin.place); })) {
    return;
  }
  std::vector<size_t> free;  // stages that may compute on CPUs instead
  for (size_t s = 0; s < all.on_gpu.size(); ++s) {
    if (all.on_gpu[s] && !all.forced[s]) free.push_back(s);
  }
  if (task.cluster.size() > kAllDevices) {
    return layouts_with_fewer_gpus(candidate, all, task, take);
  }
  for (unsigned cpus = 1; cpus < 1u << free.size(); ++cpus) {
    std::vector<bool> on_gpu = all.on_gpu;
    for (size_t i = 0; i < free.size(); ++i) {
      if (cpus >> i & 1) on_gpu[free[i]] = false;
    }
    bool enough = false;
    layouts_on(candidate, on_gpu, task, ways,
               [&](const Plan& plan) { return enough = take(plan); });
    if (enough) return;
  }
}

}  // namespace

std::vector<Plan> lay_out(const Candidate& candidate, const PlanTask& task,
                          std::span<const SpillWay> ways) {
  std::vector<Plan> plans;
  each_layout(candidate, task, ways, [&](const Plan& plan) {
    plans.push_back(plan);
    return false;
  });
  return plans;
}

bool some_layout_fits(const Candidate& candidate, const PlanTask& task,
                      std::span<const SpillWay> ways) {
  bool fits = false;
  each_layout(candidate, task, ways,
              [&](const Plan& plan) { return fits = shortage(plan).bytes <= 0; });
  return fits;
}

}  // namespace spillway

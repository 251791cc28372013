// See explain.h.
#include "parallel/explain.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <future>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "kernels/core/error.h"
#include "parallel/cluster_file.h"
#include "parallel/pins.h"
#include "parallel/search.h"
#include "parallel/shortage.h"
#include "parallel/size_text.h"

namespace spillway {
namespace {

constexpr size_t kLineWidth = 100;
constexpr int64_t kGib = int64_t{1} << 30;

// The line of this memory that takes most, but for the CUDA context, which nobody can change.
void find_line(const Plan& plan, Binding& binding) {
  std::map<std::pair<std::string, std::string>, int64_t> lines;
  for (const LedgerLine& line : plan.ledger) {
    if (line.rank != binding.rank || line.place != binding.place) continue;
    const bool layers = line.detail.rfind("layer ", 0) == 0;
    const size_t half = line.detail.rfind(' ');
    // Layers are many and alike: their halves together.
    std::string detail = line.detail;
    if (layers) detail = line.name == "kv" ? "all layers" : line.detail.substr(half + 1);
    lines[{line.name, detail}] += line.bytes;
  }
  for (const auto& [key, bytes] : lines) {
    if (bytes <= binding.line_bytes) continue;
    binding.line_bytes = bytes;
    binding.line = key.first + ", " + key.second;
  }
}

bool spills(const Plan& plan) {
  return std::any_of(plan.parts.begin(), plan.parts.end(), [](const RankPart& part) {
    return std::any_of(part.layers.begin(), part.layers.end(), [](const LayerPart& layer) {
      return layer.attention != Place::kResident || layer.feed_forward != Place::kResident;
    });
  });
}

// The first rank that has a GPU which it may use and does not; -1: none.
int leaves_gpu(const Plan& plan, const ClusterSpec& cluster, const PlanRequest& request) {
  if (request.gpu_layers == 0) return -1;
  for (const RankPart& part : plan.parts) {
    if (!part.gpu && cluster.ranks[static_cast<size_t>(part.rank)].gpu.present() &&
        request.device_of(part.rank) != DeviceChoice::kCpu) {
      return part.rank;
    }
  }
  return -1;
}

// The memory that is fullest: of GPUs alone where the plan spills from them.
void find_fullest(const Plan& plan, Binding& binding) {
  double fullest = -1;
  const bool gpus_first = spills(plan) && plan.uses_gpu();
  const Lacks lacks = lacks_of(plan);
  for (const RankPart& part : plan.parts) {
    for (const char* place : {"gpu", "host"}) {
      const bool gpu = std::string(place) == "gpu";
      if (gpu != part.gpu && (gpu || gpus_first)) continue;
      if (!gpu && gpus_first) continue;
      const int64_t budget = budget_bytes(plan, part.rank, place);
      if (budget <= 0) continue;
      const int64_t used = (gpu ? lacks.gpu : lacks.host)[static_cast<size_t>(part.rank)] + budget;
      const double full = static_cast<double>(used) / static_cast<double>(budget);
      if (full <= fullest) continue;
      fullest = full;
      binding.rank = part.rank;
      binding.place = place;
      binding.used_bytes = used;
      binding.budget_bytes = budget;
    }
  }
}

Binding find_binding(const Plan& plan, const ModelSpec& model, const ClusterSpec& cluster,
                     const PlanRequest& request) {
  Binding binding;
  const int left = leaves_gpu(plan, cluster, request);
  if (left >= 0 && !spills(plan)) {
    binding.rank = left;
    binding.place = "gpu";
    binding.budget_bytes = budget_bytes(plan, left, "gpu");
    binding.unused = true;
  } else {
    find_fullest(plan, binding);
    find_line(plan, binding);
  }
  const RankBudget& budget = plan.budgets[static_cast<size_t>(binding.rank)];
  binding.given = binding.place == "gpu" ? budget.gpu_given : budget.host_given;
  binding.pins = pin_hold(plan, model, request);
  const int64_t most = model.context_length;
  const bool longer =
      request.objective == Objective::kContext && request.context == 0 && plan.kv.context < most;
  const bool by_memory = spills(plan) && !binding.pins.all_spilled;
  binding.binds = by_memory || left >= 0 || longer;
  return binding;
}

// The cluster and the request with so much more at one kind of place, of every GPU or host.
void add_memory(const std::string& place, const Plan& plan, ClusterSpec& cluster,
                PlanRequest& request) {
  std::vector<Budget> budgets;
  const bool gpu = place == "gpu";
  for (RankSpec& rank : cluster.ranks) {
    const int64_t sharing =
        gpu ? std::max<int64_t>(1, static_cast<int64_t>(ranks_on_gpu(cluster, rank.rank).size()))
            : std::max(1, rank.local_size);
    const RankBudget& budget = plan.budgets[static_cast<size_t>(rank.rank)];
    const int64_t now = (gpu ? budget.gpu_bytes : budget.host_bytes) + kGib / sharing;
    budgets.push_back({std::max<int64_t>(now, 1), 0});
    // What lies beyond the budget may not be there; the question is what it would bring.
    if (gpu && rank.gpu.present()) {
      rank.gpu.free_bytes += kGib;
      rank.gpu.total_bytes += kGib;
    }
    if (!gpu) rank.memory_free_bytes += kGib;
  }
  (gpu ? request.gpu_memory : request.host_memory) = budgets;
}

// Whether the one is better by the objective: the longest context first.
bool better(const Plan& a, const Plan& b, const PlanRequest& request) {
  const bool longest = request.objective == Objective::kContext && request.context == 0;
  if (longest && a.kv.context != b.kv.context) return a.kv.context > b.kv.context;
  return plan_score(a, request.objective) < plan_score(b, request.objective);
}

// What more memory brings: all of it from one plan, also what that one is slower at.
OneMoreGib gain_of(const std::string& place, const Plan& plan, const Plan& more) {
  const Prediction& now = more.prediction;
  const Prediction& then = plan.prediction;
  OneMoreGib gain;
  gain.place = place;
  gain.decode_tok_per_s = now.decode_tok_per_s - then.decode_tok_per_s;
  gain.prefill_tok_per_s = now.prefill_tok_per_s - then.prefill_tok_per_s;
  const bool several = plan.limits.max_sequences > 1;
  gain.sequences_tok_per_s = several ? now.sequences_tok_per_s - then.sequences_tok_per_s : 0;
  gain.context = more.kv.context - plan.kv.context;
  return gain;
}

// The plans with one GiB more at that kind of place, being made by threads of their own: the best
// of all, then the best with the same cuts; no plan where there is none.
std::vector<std::future<std::optional<Plan>>> plans_with_more(const std::string& place,
                                                              const Plan& plan,
                                                              const ModelSpec& model,
                                                              const ClusterSpec& measured,
                                                              const PlanRequest& request) {
  ClusterSpec cluster = measured;
  PlanRequest asked = request;
  add_memory(place, plan, cluster, asked);
  // As the whole search would have it, and with the same cuts: the search may end elsewhere.
  PlanRequest same = asked;
  const PlanRequest pins = pins_of(plan);
  same.tp = same.pp = 0;
  same.layers.clear();
  same.shares.clear();
  same.split = pins.split;
  same.order = pins.order;
  same.devices = pins.devices;
  std::vector<std::future<std::optional<Plan>>> plans;
  for (const PlanRequest& one : {asked, same}) {
    // Where no thread can be had it is made when it is asked for.
    constexpr auto kPolicy = std::launch::async | std::launch::deferred;
    plans.push_back(std::async(kPolicy, [&model, cluster, one]() -> std::optional<Plan> {
      try {
        return make_plan(model, cluster, one);
      } catch (const Error&) {
        return {};  // lists by rank and shared GPUs may contradict: nothing is promised then
      }
    }));
  }
  return plans;
}

std::string devices_text(const Plan& plan) {
  std::vector<DeviceChoice> devices;
  for (const RankPart& part : plan.parts) {
    devices.push_back(part.gpu ? DeviceChoice::kGpu : DeviceChoice::kCpu);
  }
  if (std::equal(devices.begin() + 1, devices.end(), devices.begin())) {
    return plan.parts[0].gpu ? "GPU" : "CPU";
  }
  return device_list_text(devices);
}

Alternative alternative_of(const Plan& plan) {
  Alternative out;
  out.what = plan_title(plan) + " on " + devices_text(plan);
  const std::string spilled = spill_text(plan);
  if (!spilled.empty()) out.what += ", " + spilled;
  out.decode_tok_per_s = plan.prediction.decode_tok_per_s;
  out.prefill_tok_per_s = plan.prediction.prefill_tok_per_s;
  out.sequences_tok_per_s = plan.prediction.sequences_tok_per_s;
  out.context = plan.kv.context;
  PlanRequest pins = pins_of(plan);
  out.flags = request_flags(pins);
  return out;
}

}  // namespace

std::optional<FewerRanks> fewer_ranks(const Plan& plan, const ModelSpec& model,
                                      const ClusterSpec& measured, const PlanRequest& request) {
  const bool named = !request.split.empty() || !request.layers.empty() || !request.shares.empty() ||
                     !request.order.empty() || !request.devices.empty() || request.tp > 0 ||
                     request.pp > 0;
  const bool longest = request.objective == Objective::kContext && request.context == 0;
  const int n = plan.n_ranks();
  if (named || longest || n < 2) return {};
  int gpus = 0;
  while (gpus < n && plan.parts[static_cast<size_t>(gpus)].gpu) ++gpus;
  std::set<int> counts = {gpus};
  if (!spills(plan)) counts.insert({1, 2, n / 2});
  FewerRanks best = {0, n, 1};
  for (const int k : counts) {
    if (k < 1 || k >= n) continue;
    PlanRequest fewer = request;
    for (auto* list : {&fewer.gpu_memory, &fewer.host_memory}) {
      if (list->size() > 1) list->resize(static_cast<size_t>(k));
    }
    try {
      const Plan other = make_plan(model, first_ranks(measured, k, ""), fewer);
      const double times =
          plan_score(plan, request.objective) / plan_score(other, request.objective);
      if (times > best.times) best = {k, n, times};
    } catch (const Error&) {
      continue;  // too little memory
    }
  }
  if (best.times < kClearlyFaster) return {};
  return best;
}

std::string fewer_ranks_text(const FewerRanks& fewer) {
  const std::string np = std::to_string(fewer.ranks);
  return np + " of the " + std::to_string(fewer.of) + " ranks alone " +
         (fewer.ranks == 1 ? "is" : "are") + " predicted " + fixed_text(fewer.times, 1) +
         " times as fast: mpirun -np " + np + "\n";
}

namespace {

// Nothing where there are no pins of places, or the plan would be about as fast.
std::optional<WithoutPins> without_pins(const Plan& plan, const ModelSpec& model,
                                        const ClusterSpec& measured, const PlanRequest& request) {
  if (request.places.empty() && request.gpu_layers < 0) return {};
  PlanRequest free = request;
  free.places.clear();
  free.gpu_layers = -1;
  try {
    const Plan other = make_plan(model, measured, free);
    const double times = plan_score(plan, request.objective) / plan_score(other, request.objective);
    if (times < kClearlyFaster) return {};
    return WithoutPins{other.prediction.decode_tok_per_s, other.prediction.prefill_tok_per_s,
                       times};
  } catch (const Error&) {
    return {};
  }
}

}  // namespace

Explanation explain(const Planned& planned, const ModelSpec& model, const ClusterSpec& measured,
                    const PlanRequest& request) {
  Explanation out;
  out.binding = find_binding(planned.plan, model, measured, request);
  std::vector<std::string> places = {"host"};
  if (planned.plan.uses_gpu() || out.binding.unused) places.insert(places.begin(), "gpu");
  std::vector<std::vector<std::future<std::optional<Plan>>>> plans;
  for (const std::string& place : places) {
    plans.push_back(plans_with_more(place, planned.plan, model, measured, request));
  }
  out.fewer = fewer_ranks(planned.plan, model, measured, request);
  out.without_pins = without_pins(planned.plan, model, measured, request);
  for (size_t i = 0; i < places.size(); ++i) {
    Plan best = planned.plan;
    for (auto& plan : plans[i]) {
      const std::optional<Plan> made = plan.get();
      if (made && better(*made, best, request)) best = *made;
    }
    out.more.push_back(gain_of(places[i], planned.plan, best));
  }
  std::vector<std::string> said = {alternative_of(planned.plan).what};
  for (const Plan& other : planned.others) {
    if (out.alternatives.size() == kAlternatives) break;
    Alternative one = alternative_of(other);
    if (std::find(said.begin(), said.end(), one.what) != said.end()) continue;
    said.push_back(one.what);
    out.alternatives.push_back(std::move(one));
  }
  return out;
}

namespace {

// "+5.1 tok/s decode, -120 tok/s prefill": what differs by more than a thousandth.
std::string gains_text(const OneMoreGib& more, const Plan& plan) {
  std::string text;
  const auto add = [&](double gain, double of, const std::string& rate, const char* what) {
    if (std::fabs(gain) <= 0.001 * of) return;
    append_item(text, ", ", (gain > 0 ? "+" : "-") + rate + what);
  };
  const Prediction& p = plan.prediction;
  add(more.decode_tok_per_s, p.decode_tok_per_s, rate_text(std::fabs(more.decode_tok_per_s)),
      " tok/s decode");
  add(more.sequences_tok_per_s, p.sequences_tok_per_s,
      fixed_text(std::fabs(more.sequences_tok_per_s), 1), " tok/s together");
  add(more.prefill_tok_per_s, p.prefill_tok_per_s, fixed_text(std::fabs(more.prefill_tok_per_s), 0),
      " tok/s prefill");
  add(static_cast<double>(more.context), 0, count_text(std::abs(more.context), "token"),
      " of context");
  return text;
}

// "rank 0's GPU: 2.99 GiB of 3.00 GiB (--gpu-memory), most of it weights, feed-forward (1.20 GiB)"
std::string memory_text(const Binding& b) {
  const bool gpu = b.place == "gpu";
  const std::string whose = "rank " + std::to_string(b.rank) + (gpu ? "'s GPU" : "'s host memory");
  const std::string budget =
      size_text(b.budget_bytes) +
      (b.given ? std::string(" (") + (gpu ? "--gpu-memory" : "--host-memory") + ")" : "");
  if (b.unused) {
    return whose + ", not used: " + budget + " do not hold the stage, or it is slower there";
  }
  std::string out = whose + ": " + size_text(b.used_bytes) + " of " + budget;
  if (b.line_bytes > 0) out += ", most of it " + b.line + " (" + size_text(b.line_bytes) + ")";
  return out;
}

// What binds: pins, or a memory, beside which pins are named that hold some of it.
std::string binding_text(const Binding& b, const Plan& plan) {
  const PinHold& pins = b.pins;
  const std::string keep = pins.flags.find(" and ") == std::string::npos ? " keeps " : " keep ";
  if (pins.all_spilled) {
    return "bound by " + pins.flags + ", which" + keep + size_text(pins.off_bytes) +
           " of weights " + (plan.uses_gpu() ? "off the GPUs" : "on the disk") + "; fullest is " +
           memory_text(b);
  }
  std::string out = (b.binds ? "bound by " : "not bound by memory; fullest is ") + memory_text(b);
  if (!b.binds || (pins.kept_bytes == 0 && pins.off_bytes == 0)) return out;
  out += "; " + pins.flags + keep;
  const std::string there = plan.uses_gpu() ? " on the GPUs" : " in memory";
  const std::string off = plan.uses_gpu() ? " off them" : " on the disk";
  if (pins.kept_bytes > 0) out += size_text(pins.kept_bytes) + " of weights" + there;
  if (pins.kept_bytes > 0 && pins.off_bytes > 0) out += " and ";
  if (pins.off_bytes > 0) out += size_text(pins.off_bytes) + off;
  return out;
}

}  // namespace

std::string explanation_text(const Explanation& explanation, const Plan& plan) {
  std::string out = wrapped_text(binding_text(explanation.binding, plan), kLineWidth, 4) + "\n";
  const std::string& note = explanation.binding.pins.note;
  if (!note.empty()) out += wrapped_text(note, kLineWidth, 4) + "\n";
  if (explanation.without_pins) {
    const WithoutPins& free = *explanation.without_pins;
    out += "without " + explanation.binding.pins.flags + ": decode " +
           rate_text(free.decode_tok_per_s) + ", prefill " + fixed_text(free.prefill_tok_per_s, 0) +
           " tok/s\n";
  }
  if (explanation.fewer) out += fewer_ranks_text(*explanation.fewer);
  for (const OneMoreGib& more : explanation.more) {
    const std::string gains = gains_text(more, plan);
    out += std::string("one more GiB ") +
           (more.place == "gpu" ? "on every GPU: " : "of host memory: ") +
           (gains.empty() ? "nothing" : gains) + "\n";
  }
  if (!explanation.alternatives.empty()) out += "else:\n";
  for (const Alternative& one : explanation.alternatives) {
    std::string rates = "decode " + rate_text(one.decode_tok_per_s) + ", prefill " +
                        fixed_text(one.prefill_tok_per_s, 0) + " tok/s";
    if (plan.limits.max_sequences > 1) {
      rates += ", together " + fixed_text(one.sequences_tok_per_s, 1);
    }
    const bool fits = one.what.size() + rates.size() + 4 <= kLineWidth;
    out += wrapped_text("  " + one.what + ":", kLineWidth, 6) + (fits ? " " : "\n      ") + rates +
           "\n";
  }
  return out;
}

}  // namespace spillway

// See planner.h. A plan is made in steps: the request is checked, candidates (which ranks form
// which stages) are laid out and judged (search.cc), for a context and a cache type that are given
// or the longest that fits; what cannot be is refused with the nearest that can. Called by the
// coordinator, by `plan` and `verify`; never looks at the machine it runs on.
#include "parallel/planner.h"

#include <algorithm>
#include <utility>

#include "kernels/core/check.h"
#include "kernels/core/error.h"
#include "parallel/candidates.h"
#include "parallel/contexts.h"
#include "parallel/ledger.h"
#include "parallel/pins.h"
#include "parallel/plan_request_check.h"
#include "parallel/search.h"
#include "parallel/shortage.h"
#include "parallel/size_text.h"

namespace spillway {
namespace {

// Of a model that does not say what it was trained with.
constexpr int64_t kMostContext = int64_t{1} << 20;

// The request's cache type, and the smaller ones that it allows.
std::vector<KvType> kv_types(const ModelSpec& model, const PlanRequest& request) {
  std::vector<KvType> types = {request.kv_type};
  for (const KvType type : {KvType::kQ8_0, KvType::kQ4_0}) {
    const bool smaller = kv_row_bytes(type, 32) < kv_row_bytes(request.kv_type, 32);
    const bool allowed = kv_row_bytes(type, 32) >= kv_row_bytes(request.least_kv, 32);
    if (smaller && allowed && kv_type_fits(type, model.head_dim)) types.push_back(type);
  }
  return types;
}

// The longest context, by the first cache type that has it. False: none fits.
bool set_longest_context(PlanTask& task) {
  const int64_t trained = most_context(task.model);
  const int64_t most = trained > 0 ? trained : kMostContext;
  int64_t longest = 0;
  KvType best = task.request.kv_type;
  std::optional<Candidate> holder;
  for (const KvType type : kv_types(task.model, task.request)) {
    task.request.kv_type = type;
    LongestContext now = longest_context(task, most);
    if (now.tokens <= longest) continue;
    longest = now.tokens;
    best = type;
    holder = std::move(now.holder);
  }
  task.request.kv_type = best;
  task.request.context = longest;
  if (holder) task.holders = {*holder};
  return longest > 0;
}

// By cache type and by tokens a step, until something fits; else what lacks least.
std::vector<Found> search_types(PlanTask task, const std::vector<KvType>& types) {
  std::vector<Found> found;
  const PlanRequest request = task.request;
  for (const KvType type : types) {
    task.request.kv_type = type;
    for (const int64_t rows : step_rows(request)) {
      task.request.gpu_rows = rows;
      task.request.choose_gpu_rows = request.choose_gpu_rows && rows == request.gpu_rows;
      std::vector<Found> now = search(task);
      if (now.empty()) refuse_mixture(task.cluster, request);
      if (found.empty() || now[0].lack.bytes < found[0].lack.bytes) found = std::move(now);
      if (found[0].lack.bytes <= 0) return found;
    }
  }
  return found;
}

bool reads_disk(const Plan& plan) {
  return std::any_of(plan.parts.begin(), plan.parts.end(), [](const RankPart& part) {
    return std::any_of(part.layers.begin(), part.layers.end(), [](const LayerPart& layer) {
      return layer.attention == Place::kDisk || layer.feed_forward == Place::kDisk;
    });
  });
}

Planned planned(const ModelSpec& model, const ClusterSpec& cluster, const PlanRequest& request) {
  check_model(model);
  check_request(model, cluster, request);
  check_pins(model, cluster, request);
  PlanTask task{model, cluster, request,
                budgets_of(cluster, request.gpu_memory, request.host_memory)};
  task.request.places = gpu_layer_pins(model, request.gpu_layers);
  task.request.places.insert(task.request.places.end(), request.places.begin(),
                             request.places.end());
  if (request.gpu_layers > 0) {
    // check_pins() saw that all ranks have one. Layers that lie on GPUs are not a CPU's.
    task.request.device = DeviceChoice::kGpu;
    task.request.devices.clear();
  }
  if (request.gpu_layers == 0) {
    task.request.places = request.places;
    task.request.device = DeviceChoice::kCpu;
    task.request.devices.clear();
  }
  const bool longest = request.objective == Objective::kContext && request.context == 0;
  std::vector<KvType> types = kv_types(model, request);
  if (longest && set_longest_context(task)) types = {task.request.kv_type};
  std::vector<Found> found = search_types(task, types);
  // The last resort, since it is slow: whatever else is smaller has been tried, and GPUs that read
  // the disk may be slower yet.
  task.disk_for_cpus = true;
  if (!fits(found[0]) || reads_disk(found[0].plan)) {
    std::vector<Found> others = search_types(task, types);
    const bool better = fits(found[0]) && fits(others[0])
                            ? others[0].score * kWorthIt < found[0].score
                            : before(others[0], found[0]);
    if (better) found = std::move(others);
  }
  if (found[0].lack.bytes > 0) {
    too_little_memory(found[0].plan, model, cluster, found[0].lack);
  }
  Planned out;
  out.plan = std::move(found[0].plan);
  write_ledger(out.plan, model, cluster);
  for (size_t i = 1; i < found.size() && found[i].lack.bytes <= 0; ++i) {
    out.others.push_back(std::move(found[i].plan));
  }
  return out;
}

// The request's pins let go one kind after the other; at the end the context is the longest.
constexpr int kLettingGo = 6;
void let_go(PlanRequest& request, int step) {
  switch (step) {
    case 0:
      request.places.clear();
      break;
    case 1:
      request.gpu_layers = -1;
      request.layers.clear();
      request.shares.clear();
      request.order.clear();
      break;
    case 2:
      request.split.clear();
      request.tp = request.pp = 0;
      break;
    case 3:
      request.device = DeviceChoice::kAuto;
      request.devices.clear();
      break;
    case 4:
      request.gpu_memory.clear();
      request.host_memory.clear();
      break;
    default:
      request.context = 0;
      request.objective = Objective::kContext;
  }
}

bool can_be(const ModelSpec& model, const ClusterSpec& cluster, const PlanRequest& request) {
  try {
    planned(model, cluster, request);
    return true;
  } catch (const Error&) {
    return false;
  }
}

constexpr int64_t kLeastContext = 256;
constexpr int64_t kShortSteps[] = {32, 64, 128, 256};  // rising

// "-c 512 --ubatch-size 32", beside which the request's other flags fit: of contexts that halve the
// longest, then of steps; "" when none is longer than that of steps that are no shorter.
std::string shorter_flags(const ModelSpec& model, const ClusterSpec& cluster,
                          const PlanRequest& request, int64_t longest) {
  const int64_t asked = planned_context(model, request);
  const auto shorter = [&](int64_t context, int64_t rows) {
    PlanRequest less = request;
    less.context = context;
    less.gpu_rows = less.limits.max_rows = rows;
    less.choose_gpu_rows = false;
    return less;
  };
  std::vector<int64_t> contexts = {asked};
  for (int64_t c = kLeastContext; c < asked; c *= 2) contexts.insert(contexts.begin() + 1, c);
  const int64_t shortest = std::min(kShortSteps[0], request.limits.max_rows);
  const auto context = std::find_if(contexts.begin(), contexts.end(), [&](int64_t c) {
    return c > longest && can_be(model, cluster, shorter(c, shortest));
  });
  if (context == contexts.end()) return "";
  int64_t rows = shortest;
  for (const int64_t more : kShortSteps) {
    if (more <= shortest) continue;
    if (more >= request.limits.max_rows || !can_be(model, cluster, shorter(*context, more))) break;
    rows = more;
  }
  std::string flags;
  if (*context < asked) flags = "-c " + std::to_string(*context);
  if (rows < request.limits.max_rows) {
    append_item(flags, " ", "--ubatch-size " + std::to_string(rows));
  }
  return flags;
}

// The most layers below -ngl's with which there is a plan; 0: there is none.
int64_t fewer_gpu_layers(const ModelSpec& model, const ClusterSpec& cluster, PlanRequest request) {
  int64_t low = 0;
  int64_t high = std::min(request.gpu_layers, model.n_layers);
  while (high - low > 1) {
    request.gpu_layers = low + (high - low) / 2;
    (can_be(model, cluster, request) ? low : high) = request.gpu_layers;
  }
  return low;
}

// ", without --host-memory": the names of flags that were asked for and are let go.
std::string without_text(const std::string& asked, const std::string& kept) {
  const auto names = [](const std::string& flags) {
    std::vector<std::string> out;
    for (size_t at = 0; at < flags.size();) {
      const size_t end = std::min(flags.find(' ', at), flags.size());
      if (flags[at] == '-') out.push_back(flags.substr(at, end - at));
      at = end + 1;
    }
    return out;
  };
  const std::vector<std::string> still = names(kept);
  std::string text;
  for (const std::string& name : names(asked)) {
    if (std::find(still.begin(), still.end(), name) != still.end()) continue;
    append_item(text, " and ", name);
  }
  return text.empty() ? "" : ", without " + text;
}

// The flags of the nearest request that can be planned, "" when nothing helps.
std::string nearest_flags(const ModelSpec& model, const ClusterSpec& cluster, PlanRequest request) {
  const Objective objective = request.objective;
  std::string last = request_flags(request);
  const std::string asked = last;
  if (request.gpu_layers > 1) {
    PlanRequest fewer = request;
    fewer.gpu_layers = fewer_gpu_layers(model, cluster, request);
    if (fewer.gpu_layers > 0) return request_flags(fewer);
  }
  for (int step = 0; step < kLettingGo; ++step) {
    let_go(request, step);
    if (request_flags(request) == last) continue;
    last = request_flags(request);
    try {
      const Plan plan = planned(model, cluster, request).plan;
      if (request.objective != objective) {
        request.context = plan.kv.context;
        request.kv_type = plan.kv.type;
        request.objective = objective;
      }
      const std::string flags = request_flags(request);
      return flags.empty() ? "without these flags" : flags + without_text(asked, flags);
    } catch (const Error&) {
      continue;  // the next one lets go of more
    }
  }
  return "";
}

[[noreturn]] void refuse(const Error& error, const std::string& todo) {
  throw Error(error.message(), error.where(), todo);
}

}  // namespace

Planned plan_and_others(const ModelSpec& model, const ClusterSpec& measured,
                        const PlanRequest& request) {
  const ClusterSpec cluster = with_shared_gpus(like_ranks_equal(measured));
  try {
    return planned(model, cluster, request);
  } catch (const CacheTooLarge& error) {
    const std::string shorter = shorter_flags(model, cluster, request, error.longest());
    if (!shorter.empty()) refuse(error, shorter + " fits; or " + error.todo());
    const std::string nearest = nearest_flags(model, cluster, request);
    refuse(error, (error.longest() > 0 ? "" : "no context fits: ") + error.todo() +
                      (nearest.empty() ? "" : "; the nearest that is possible: " + nearest));
  } catch (const Error& error) {
    check_model(model);
    const std::string nearest = nearest_flags(model, cluster, request);
    if (nearest.empty()) throw;
    refuse(error, error.todo() + (error.todo().empty() ? "" : "; ") +
                      "the nearest that is possible: " + nearest);
  }
}

Plan make_plan(const ModelSpec& model, const ClusterSpec& measured, const PlanRequest& request) {
  return plan_and_others(model, measured, request).plan;
}

std::vector<std::vector<StagePin>> all_splits(const ModelSpec& model, int n_ranks, bool uneven) {
  CHECK_GE(n_ranks, 1);
  std::vector<std::vector<StagePin>> splits;
  for (const auto& even : compositions(n_ranks, model.n_layers)) {
    splits.push_back(even);
    if (!uneven) continue;
    std::vector<StagePin> skewed = even;
    bool changed = false;
    for (StagePin& pin : skewed) {
      if (pin.shares.size() < 2) continue;
      pin.shares[0] = 2;
      changed = true;
    }
    if (changed) splits.push_back(std::move(skewed));
  }
  return splits;
}

}  // namespace spillway

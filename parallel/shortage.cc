// See shortage.h.
#include "parallel/shortage.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "kernels/core/error.h"
#include "parallel/ledger.h"
#include "parallel/size_text.h"

namespace spillway {
namespace {

// "has 20.00 GiB free", "may take 3.00 GiB (--gpu-memory)", "may take 31.00 GiB of 32.00 GiB free".
std::string allowance_text(const Plan& plan, const RankSpec& spec, const std::string& place) {
  const RankBudget& budget = plan.budgets[static_cast<size_t>(spec.rank)];
  const bool gpu = place == "gpu";
  const int64_t free = gpu ? spec.gpu.free_bytes : spec.memory_free_bytes;
  const int64_t mine = gpu ? budget.gpu_bytes : budget.host_bytes;
  if (gpu ? budget.gpu_given : budget.host_given) {
    return "may take " + size_text(mine) + (gpu ? " (--gpu-memory)" : " (--host-memory)");
  }
  if (mine == free) return "has " + size_text(free) + " free";
  return "may take " + size_text(mine) + " of " + size_text(free) + " free";
}

// The longest context with which every rank holds its part; 0 when there is none.
int64_t longest_context(const Plan& plan, const ModelSpec& model) {
  const auto fits = [&](int64_t context) {
    KvPlan kv = plan.kv;
    kv.n_pages = div_up(context, kv.page_tokens) + plan.limits.max_sequences;
    for (int r = 0; r < plan.n_ranks(); ++r) {
      const RankPart& part = plan.parts[r];
      const char* place = place_of(part);
      const int64_t fixed = plan.rank_bytes(r, "", place) - plan.rank_bytes(r, "kv");
      const Range& layers = plan.stages[part.stage].layers;
      if (fixed + kv_bytes(model, part, layers, kv) > budget_bytes(plan, r, place)) return false;
    }
    return true;
  };
  // Whole pages: low fits, high does not.
  int64_t low = 0;
  int64_t high = div_up(plan.kv.context, plan.kv.page_tokens);
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (fits(middle * plan.kv.page_tokens) ? low : high) = middle;
  }
  return low * plan.kv.page_tokens;
}

// "weights 3.1 GiB, kv 512.0 MiB, program 18.2 MiB": the greatest three.
std::string greatest_groups(const Plan& plan, int rank, const std::string& place) {
  std::vector<std::pair<int64_t, const char*>> sizes;
  for (const char* name : {"weights", "kv", "activations", "program"}) {
    sizes.emplace_back(plan.rank_bytes(rank, name, place), name);
  }
  std::stable_sort(sizes.begin(), sizes.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  std::string groups;
  for (int i = 0; i < 3; ++i) {
    if (sizes[i].first == 0) continue;
    append_item(groups, ", ", std::string(sizes[i].second) + " " + size_text(sizes[i].first));
  }
  return groups;
}

}  // namespace

int64_t budget_bytes(const Plan& plan, int rank, const std::string& place) {
  if (plan.budgets.empty()) return INT64_MAX;
  const RankBudget& budget = plan.budgets[static_cast<size_t>(rank)];
  return place == "gpu" ? budget.gpu_bytes : budget.host_bytes;
}

Lacks lacks_of(const Plan& plan) {
  Lacks lacks;
  for (int r = 0; r < plan.n_ranks(); ++r) {
    lacks.gpu.push_back(-budget_bytes(plan, r, "gpu"));
    lacks.host.push_back(-budget_bytes(plan, r, "host"));
  }
  for (const LedgerLine& line : plan.ledger) {
    if (line.place == "gpu") lacks.gpu[static_cast<size_t>(line.rank)] += line.bytes;
    if (line.place == "host") lacks.host[static_cast<size_t>(line.rank)] += line.bytes;
  }
  return lacks;
}

Shortage shortage(const Plan& plan) {
  const Lacks lacks = lacks_of(plan);
  Shortage worst = {0, "host", INT64_MIN};
  for (const RankPart& part : plan.parts) {
    const auto r = static_cast<size_t>(part.rank);
    if (part.gpu && lacks.gpu[r] > worst.bytes) worst = {part.rank, "gpu", lacks.gpu[r]};
    if (lacks.host[r] > worst.bytes) worst = {part.rank, "host", lacks.host[r]};
  }
  return worst;
}

void too_little_memory(const Plan& plan, const ModelSpec& model, const ClusterSpec& cluster,
                       const Shortage& worst) {
  const RankSpec& spec = cluster.ranks[static_cast<size_t>(worst.rank)];
  const bool gpu = std::string(worst.place) == "gpu";
  const std::string what = "rank " + std::to_string(worst.rank) + " needs " +
                           size_text(plan.rank_bytes(worst.rank, "", worst.place)) +
                           (gpu ? " of GPU memory (" : " (") +
                           greatest_groups(plan, worst.rank, worst.place) + ") and " +
                           allowance_text(plan, spec, worst.place);
  // A smaller cache spares host memory only where the host holds it.
  const bool holds_kv = plan.rank_bytes(worst.rank, "kv", worst.place) > 0;
  const int64_t context = holds_kv ? longest_context(plan, model) : 0;
  const RankBudget& budget = plan.budgets[static_cast<size_t>(worst.rank)];
  const std::string where =
      plan_title(plan) + ", host " + spec.host + (gpu ? ", " + spec.gpu.text() : "");
  std::string todo;
  if (gpu) {
    todo = budget.gpu_given ? "give it more with --gpu-memory, " : "free the GPU's memory, ";
    if (context > 0) todo.clear();
    if (plan.n_ranks() > 1) todo += "give this rank a smaller share with --split, ";
    todo += "or use --device cpu";
    if (todo.starts_with("or ")) todo.erase(0, 3);
  } else if (holds_kv && context > 0) {
    todo = "start more ranks";
  } else {
    todo = budget.host_given ? "give it more with --host-memory" : "free memory on this host";
    if (holds_kv) {
      todo += ", start more ranks on other hosts, or give this rank a smaller share with --split";
    } else if (plan.parts[static_cast<size_t>(worst.rank)].gpu) {
      todo += ", or use --device cpu";
    }
  }
  if (!holds_kv) throw Error(what, where, todo);
  const std::string shorter = "the longest context that this split holds is " +
                              count_text(context, "token") + " (-c " + std::to_string(context) +
                              "); or ";
  throw CacheTooLarge(what, where, (context > 0 ? shorter : "") + todo, context);
}

}  // namespace spillway

// See budget.h. Called by planner.cc and, for the words, by launch/options_plan.cc.
#include "parallel/budget.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "kernels/core/error.h"
#include "parallel/size_text.h"

namespace spillway {
namespace {

constexpr std::pair<const char*, double> kUnits[] = {
    {"KiB", 1024.0}, {"MiB", 1048576.0}, {"GiB", 1073741824.0}, {"TiB", 1099511627776.0},
    {"K", 1024.0},   {"M", 1048576.0},   {"G", 1073741824.0},   {"T", 1099511627776.0},
    {"KB", 1e3},     {"MB", 1e6},        {"GB", 1e9},           {"TB", 1e12},
    {"B", 1.0},
};
constexpr double kMostBytes = 1e15;

Budget parse_budget(const std::string& flag, const std::string& word) {
  const auto fail = [&](const std::string& reason) {
    throw Error(flag + ": \"" + word + "\" " + reason, "",
                "give bytes with a unit or a part of what is free, one for all or one a rank: " +
                    flag + " 24GiB,12GiB or " + flag + " 0.8");
  };
  double value = 0;
  const char* end = word.data() + word.size();
  const auto result = std::from_chars(word.data(), end, value, std::chars_format::fixed);
  if (result.ec != std::errc()) fail("is no size");
  const std::string unit(result.ptr, end);
  if (!(value > 0)) fail("is not above 0");
  Budget budget;
  if (unit.empty() && value <= 1) {
    budget.fraction = value;
    return budget;
  }
  double scale = unit.empty() ? 1.0 : 0.0;
  for (const auto& [name, factor] : kUnits) {
    if (unit == name) scale = factor;
  }
  if (scale == 0) fail("has a unit that is not known");
  if (value * scale > kMostBytes) fail("is more than any machine has");
  budget.bytes = static_cast<int64_t>(value * scale);
  if (budget.bytes < 1) fail("is less than a byte");
  return budget;
}

// One number of GiB when that is exact, else bytes.
std::string budget_text(const Budget& budget) {
  if (budget.fraction > 0) return shortest_text(budget.fraction);
  constexpr int64_t kSixteenth = (int64_t{1} << 30) / 16;
  if (budget.bytes % kSixteenth == 0) {
    return shortest_text(static_cast<double>(budget.bytes) / 1073741824.0) + "GiB";
  }
  return std::to_string(budget.bytes) + "B";
}

void check_length(const std::string& flag, const std::vector<Budget>& list, int n_ranks) {
  const auto n = static_cast<int>(list.size());
  if (n <= 1 || n == n_ranks) return;
  throw Error(flag + " names " + std::to_string(n) + " sizes, the job has " +
                  std::to_string(n_ranks) + (n_ranks == 1 ? " rank" : " ranks"),
              "", "name one a rank, or one for all");
}

// Of a memory with so much free, of which this is one of `sharing` even parts.
int64_t budget_bytes(const std::string& flag, const std::vector<Budget>& list, const RankSpec& spec,
                     int64_t free_bytes, int64_t sharing, const std::string& what) {
  if (list.empty()) return free_bytes;
  const bool all = list.size() == 1;
  const Budget& budget = list[all ? 0 : static_cast<size_t>(spec.rank)];
  if (budget.fraction > 0) {
    return static_cast<int64_t>(budget.fraction * static_cast<double>(free_bytes));
  }
  const int64_t bytes = all ? budget.bytes / sharing : budget.bytes;
  if (bytes <= free_bytes) return bytes;
  throw Error(flag + " " + budget_text(budget) + " is more than the " +
                  size_text(all ? free_bytes * sharing : free_bytes) + " that are free",
              "rank " + std::to_string(spec.rank) + ", host " + spec.host + what,
              "use " + flag + " " +
                  budget_text({(all ? free_bytes * sharing : free_bytes) >> 26 << 26, 0}) +
                  " or less, or leave it out");
}

int64_t ranks_on_host(const ClusterSpec& cluster, const std::string& host) {
  return std::count_if(cluster.ranks.begin(), cluster.ranks.end(),
                       [&](const RankSpec& rank) { return rank.host == host; });
}

}  // namespace

std::vector<Budget> parse_budgets(const std::string& flag, const std::string& text) {
  std::vector<Budget> budgets;
  for (size_t at = 0; at <= text.size();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    budgets.push_back(parse_budget(flag, text.substr(at, comma - at)));
    at = comma + 1;
  }
  return budgets;
}

std::string budgets_text(const std::vector<Budget>& budgets) {
  std::string text;
  for (const Budget& budget : budgets) append_item(text, ",", budget_text(budget));
  return text;
}

std::vector<RankBudget> budgets_of(const ClusterSpec& cluster, const std::vector<Budget>& gpu,
                                   const std::vector<Budget>& host) {
  check_length("--gpu-memory", gpu, cluster.size());
  check_length("--host-memory", host, cluster.size());
  std::vector<RankBudget> out;
  for (const RankSpec& spec : cluster.ranks) {
    RankBudget mine;
    mine.gpu_given = !gpu.empty();
    mine.host_given = !host.empty();
    if (spec.gpu.present()) {
      // Ranks that share a GPU have its free bytes divided among them already.
      const auto sharing = static_cast<int64_t>(ranks_on_gpu(cluster, spec.rank).size());
      mine.gpu_bytes = budget_bytes("--gpu-memory", gpu, spec, spec.gpu.free_bytes, sharing,
                                    ", " + spec.gpu.text());
    }
    mine.host_bytes = budget_bytes("--host-memory", host, spec, spec.memory_free_bytes,
                                   ranks_on_host(cluster, spec.host), "");
    if (host.empty()) mine.host_bytes -= mine.host_bytes / kHostMarginShare;
    out.push_back(mine);
  }
  return out;
}

}  // namespace spillway

// See budget.h. Called by planner.cc and, for the words, by launch/options_plan.cc.
#include "parallel/budget.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <string_view>
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
constexpr double kLeastPlainBytes = 1e6;  // "12" is no 12 bytes, but GiB whose unit was forgotten

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
  const auto same = [](char a, char b) { return std::tolower(a) == std::tolower(b); };
  if (!(value > 0)) fail("is not above 0");
  Budget budget;
  if (unit.empty() && value <= 1) {
    budget.fraction = value;
    return budget;
  }
  if (unit.empty() && value < kLeastPlainBytes) fail("has no unit: it would be bytes");
  double scale = unit.empty() ? 1.0 : 0.0;
  for (const auto& [name, factor] : kUnits) {
    const std::string_view known(name);
    if (std::equal(unit.begin(), unit.end(), known.begin(), known.end(), same)) scale = factor;
  }
  if (scale == 0) fail("has a unit that is not known (K to T, KB to TB, KiB to TiB)");
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
  throw Error(
      flag + " names " + std::to_string(n) + " sizes, the job has " + count_text(n_ranks, "rank"),
      "", "name one a rank, or one for all");
}

// A rank's budget of one memory.
struct Allowance {
  int64_t bytes = 0;
  bool given = false;
  int64_t asked_bytes = 0;
};

// Of a memory with so much free, of which this is one of `sharing` even parts; otherwise: what the
// rank may take without the flag.
Allowance allowance(const std::vector<Budget>& list, int rank, int64_t free_bytes,
                    int64_t otherwise, int64_t sharing) {
  if (list.empty()) return {otherwise, false, 0};
  const bool all = list.size() == 1;
  const Budget& budget = list[all ? 0 : static_cast<size_t>(rank)];
  if (budget.fraction > 0) {
    return {static_cast<int64_t>(budget.fraction * static_cast<double>(free_bytes)), true, 0};
  }
  const int64_t bytes = all ? budget.bytes / sharing : budget.bytes;
  if (bytes <= free_bytes) return {bytes, true, 0};
  return {otherwise, false, bytes};
}

// Cards have up to a tenth less than what is printed on them (a T4 of "16 GB" has 14.6 GiB): what
// is beyond that, 240GiB for 24GiB, was not meant.
void check_card_sizes(const ClusterSpec& cluster, const std::vector<Budget>& list) {
  int64_t greatest = 0;
  for (const RankSpec& rank : cluster.ranks) {
    // Of a card whose size is not known nothing is said.
    if (rank.gpu.present() && rank.gpu.total_bytes <= 0 && list.size() == 1) return;
    if (rank.gpu.present()) greatest = std::max(greatest, rank.gpu.total_bytes);
  }
  for (const RankSpec& rank : cluster.ranks) {
    if (!rank.gpu.present() || list.empty()) continue;
    const bool all = list.size() == 1;
    const Budget& budget = list[all ? 0 : static_cast<size_t>(rank.rank)];
    const int64_t total = all ? greatest : rank.gpu.total_bytes;
    if (total <= 0 || budget.bytes <= total + total / 8) continue;
    throw Error(
        "--gpu-memory " + budget_text(budget) + " is more than " +
            (all && cluster.size() > 1 ? "any GPU has: " : "the GPU has: ") + size_text(total) +
            " in all",
        "rank " + std::to_string(rank.rank) + ", host " + rank.host + ", " + rank.gpu.text(),
        "use --gpu-memory " + budget_text({(total + (int64_t{1} << 30) - 1) >> 30 << 30, 0}) +
            " or less, or leave it out");
  }
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
  check_card_sizes(cluster, gpu);
  std::vector<RankBudget> out;
  for (const RankSpec& spec : cluster.ranks) {
    Allowance on_gpu = {0, !gpu.empty(), 0};
    if (spec.gpu.present()) {
      // Ranks that share a GPU have its free bytes divided among them already.
      const int64_t free = spec.gpu.free_bytes;
      const auto sharing = static_cast<int64_t>(ranks_on_gpu(cluster, spec.rank).size());
      on_gpu = allowance(gpu, spec.rank, free, free, sharing);
    }
    const int64_t free = spec.memory_free_bytes;
    const Allowance on_host = allowance(host, spec.rank, free, free - free / kHostMarginShare,
                                        ranks_on_host(cluster, spec.host));
    out.push_back({on_gpu.bytes, on_host.bytes, on_gpu.given, on_host.given, on_gpu.asked_bytes,
                   on_host.asked_bytes});
  }
  return out;
}

std::vector<std::string> cut_budgets(const Plan& plan) {
  // Ranks of which the same is to be said, together.
  std::vector<std::pair<std::string, std::vector<int>>> said;
  const auto say = [&](int rank, const std::string& flag, int64_t asked, int64_t bytes,
                       const std::string& why) {
    const std::string words = flag + ": " + size_text(asked) + " asked for, the budget is " +
                              size_text(bytes) + ", " + why;
    auto found =
        std::find_if(said.begin(), said.end(), [&](const auto& one) { return one.first == words; });
    if (found == said.end()) found = said.insert(said.end(), {words, {}});
    found->second.push_back(rank);
  };
  for (size_t r = 0; r < plan.budgets.size(); ++r) {
    const RankBudget& mine = plan.budgets[r];
    const auto rank = static_cast<int>(r);
    if (mine.gpu_asked_bytes > 0 && plan.parts[r].gpu) {
      say(rank, "--gpu-memory", mine.gpu_asked_bytes, mine.gpu_bytes, "what is free");
    }
    if (mine.host_asked_bytes > 0) {
      say(rank, "--host-memory", mine.host_asked_bytes, mine.host_bytes,
          "what is free less 1/" + std::to_string(kHostMarginShare));
    }
  }
  std::vector<std::string> out;
  for (const auto& [words, ranks] : said) {
    std::string who;
    for (const int rank : ranks) append_item(who, ", ", std::to_string(rank));
    out.push_back(words + (ranks.size() == 1 ? " (rank " : " (ranks ") + who + ")");
  }
  return out;
}

}  // namespace spillway

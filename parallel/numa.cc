// See numa.h.
#include "parallel/numa.h"

#include <sched.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "parallel/cgroup.h"

namespace spillway {
namespace {

// The kernel's own limit of processors (NR_CPUS) on x86-64 is 8192.
constexpr int kMostCpus = 1 << 14;

struct FreeCpuSet {
  void operator()(cpu_set_t* set) const { CPU_FREE(set); }
};

struct CpuSet {
  std::unique_ptr<cpu_set_t, FreeCpuSet> set{CPU_ALLOC(kMostCpus)};
  size_t bytes = CPU_ALLOC_SIZE(kMostCpus);
  CpuSet() { CPU_ZERO_S(bytes, set.get()); }
};

}  // namespace

std::vector<int> parse_number_list(const std::string& text) {
  std::vector<int> numbers;
  const char* at = text.c_str();
  while (*at >= '0' && *at <= '9') {
    char* end = nullptr;
    const long first = std::strtol(at, &end, 10);
    const long last = *end == '-' ? std::strtol(end + 1, &end, 10) : first;
    for (long n = first; n <= std::min<long>(last, kMostCpus - 1); ++n) {
      numbers.push_back(static_cast<int>(n));
    }
    if (*end != ',') break;
    at = end + 1;
  }
  std::sort(numbers.begin(), numbers.end());
  numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
  return numbers;
}

std::vector<NumaNode> read_numa_nodes(const std::string& folder) {
  std::vector<NumaNode> nodes;
  for (const int id : parse_number_list(small_file_text(folder + "/online"))) {
    NumaNode node{
        id, parse_number_list(small_file_text(folder + "/node" + std::to_string(id) + "/cpulist"))};
    if (!node.cpus.empty()) nodes.push_back(std::move(node));
  }
  return nodes;
}

std::vector<int> deal_numa_nodes(const std::vector<NumaNode>& nodes,
                                 const std::vector<int>& gpu_nodes) {
  if (nodes.size() < 2) return {};
  std::vector<int> dealt(gpu_nodes.size(), -1);
  std::vector<int> ranks(nodes.size(), 0);
  for (size_t rank = 0; rank < gpu_nodes.size(); ++rank) {
    for (size_t n = 0; n < nodes.size(); ++n) {
      if (nodes[n].id != gpu_nodes[rank]) continue;
      dealt[rank] = static_cast<int>(n);
      ++ranks[n];
    }
  }
  for (int& node : dealt) {
    if (node >= 0) continue;
    node = static_cast<int>(std::min_element(ranks.begin(), ranks.end()) - ranks.begin());
    ++ranks[static_cast<size_t>(node)];
  }
  if (std::find(ranks.begin(), ranks.end(), 0) != ranks.end()) return {};
  return dealt;
}

std::vector<int> allowed_cpus_of(const NumaNode& node) {
  const CpuSet allowed;
  if (sched_getaffinity(0, allowed.bytes, allowed.set.get()) != 0) return {};
  std::vector<int> cpus;
  for (const int cpu : node.cpus) {
    if (CPU_ISSET_S(static_cast<size_t>(cpu), allowed.bytes, allowed.set.get())) {
      cpus.push_back(cpu);
    }
  }
  return cpus;
}

bool keep_to_cpus(const std::vector<int>& cpus) {
  const CpuSet wanted;
  for (const int cpu : cpus) CPU_SET_S(static_cast<size_t>(cpu), wanted.bytes, wanted.set.get());
  return !cpus.empty() && sched_setaffinity(0, wanted.bytes, wanted.set.get()) == 0;
}

}  // namespace spillway

// See cgroup.h.
#include "parallel/cgroup.h"

#include <algorithm>
#include <fstream>
#include <optional>
#include <sstream>

namespace spillway {
namespace {

std::optional<int64_t> number_in(const std::string& path) {
  std::istringstream in(small_file_text(path));
  int64_t value = 0;
  if (in >> value) return value;  // "max" is no number: no limit
  return std::nullopt;
}

// Page cache that the kernel gives back first counts as used; it is not lost to us.
int64_t reclaimable_bytes(const std::string& path, const std::string& key) {
  std::istringstream in(small_file_text(path));
  std::string name;
  int64_t value = 0;
  while (in >> name >> value) {
    if (name == key) return std::max<int64_t>(0, value);
  }
  return 0;
}

void limit_memory(CgroupLimits& limits, std::optional<int64_t> most, std::optional<int64_t> used,
                  int64_t reclaimable) {
  if (!most || !used) return;
  const int64_t left = *most - std::max<int64_t>(0, *used - reclaimable);
  limits.memory_left_bytes = std::min(limits.memory_left_bytes, std::max<int64_t>(0, left));
}

void limit_cores(CgroupLimits& limits, double quota, double period) {
  if (quota > 0 && period > 0) limits.cores = std::min(limits.cores, quota / period);
}

void read_version_2(const std::string& folder, CgroupLimits& limits) {
  std::istringstream cpu(small_file_text(folder + "/cpu.max"));
  double quota = 0;
  double period = 0;
  if (cpu >> quota >> period) limit_cores(limits, quota, period);
  limit_memory(limits, number_in(folder + "/memory.max"), number_in(folder + "/memory.current"),
               reclaimable_bytes(folder + "/memory.stat", "inactive_file"));
}

void read_version_1(const std::string& folder, CgroupLimits& limits) {
  const auto quota = number_in(folder + "/cpu.cfs_quota_us");
  const auto period = number_in(folder + "/cpu.cfs_period_us");
  if (quota && period) {
    limit_cores(limits, static_cast<double>(*quota), static_cast<double>(*period));
  }
  limit_memory(limits, number_in(folder + "/memory.limit_in_bytes"),
               number_in(folder + "/memory.usage_in_bytes"),
               reclaimable_bytes(folder + "/memory.stat", "total_inactive_file"));
}

bool has_item(const std::string& list, const std::string& item) {
  return ("," + list + ",").find("," + item + ",") != std::string::npos;
}

// body(folder) for base + path and every folder above it up to base. A container often sees only
// its own group, mounted at base itself, so base is always among them.
template <typename Body>
void upwards(const std::string& base, std::string path, const Body& body) {
  while (path.size() > 1) {
    body(base + path);
    path.erase(path.find_last_of('/'));
  }
  body(base);
}

}  // namespace

CgroupLimits cgroup_limits(const std::string& root, const std::string& memberships) {
  CgroupLimits limits;
  std::istringstream lines(memberships);
  std::string line;
  while (std::getline(lines, line)) {
    // "ID:CONTROLLERS:PATH"; version 2 is "0::PATH".
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos || second + 1 >= line.size() || line[second + 1] != '/')
      continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    if (controllers.empty()) {
      upwards(root, path, [&](const std::string& folder) { read_version_2(folder, limits); });
      continue;
    }
    for (const char* controller : {"cpu", "memory"}) {
      if (!has_item(controllers, controller)) continue;
      upwards(root + "/" + controller, path,
              [&](const std::string& folder) { read_version_1(folder, limits); });
    }
  }
  return limits;
}

int64_t meminfo_bytes(const std::string& meminfo, const std::string& key) {
  std::istringstream lines(meminfo);
  std::string line;
  while (std::getline(lines, line)) {
    if (line.rfind(key + ":", 0) != 0) continue;
    std::istringstream in(line.substr(key.size() + 1));
    int64_t kilobytes = 0;
    if (in >> kilobytes && kilobytes > 0) return kilobytes * 1024;
  }
  return 0;
}

std::string small_file_text(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  if (file) text << file.rdbuf();
  return text.str();
}

}  // namespace spillway

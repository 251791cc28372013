// What the control group that holds this process lets it use. Read by probe.cc; the files' root is
// an argument so that tests bring their own. Never throws: a file that is missing or unreadable
// limits nothing.
//
// Version 2: cgroup-v2.rst of the kernel (cpu.max "QUOTA PERIOD", memory.max, memory.current).
// Version 1: cpu.cfs_quota_us, cpu.cfs_period_us, memory.limit_in_bytes, memory.usage_in_bytes.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

namespace spillway {

struct CgroupLimits {
  double cores = std::numeric_limits<double>::infinity();
  int64_t memory_left_bytes = std::numeric_limits<int64_t>::max();  // limit less what is used
};

// root: "/sys/fs/cgroup"; memberships: the text of /proc/self/cgroup. The tightest limit of the
// group and all above it.
CgroupLimits cgroup_limits(const std::string& root, const std::string& memberships);

// Kilobyte lines such as "MemAvailable:  123 kB" of /proc/meminfo, in bytes; 0 when not there.
int64_t meminfo_bytes(const std::string& meminfo, const std::string& key);

// The whole file as text, "" when it cannot be read. For files of /proc and /sys.
std::string small_file_text(const std::string& path);

}  // namespace spillway

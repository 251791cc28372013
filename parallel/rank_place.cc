// See rank_place.h.
#include "parallel/rank_place.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

namespace spillway {
namespace {

template <size_t n>
void put(const std::string& text, std::array<char, n>& out) {
  std::copy_n(text.begin(), std::min(text.size(), n - 1), out.begin());
}

std::string this_host() {
  std::array<char, 65> name{};
  (void)gethostname(name.data(), name.size() - 1);
  std::string boot;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  return std::string(name.data()) + " " + boot;
}

// The inode of this process's pid namespace; 0 where there is no /proc.
uint64_t this_pid_space() {
  struct stat space {};
  return stat("/proc/self/ns/pid", &space) == 0 ? space.st_ino : 0;
}

std::string ranks_text(size_t a, size_t b) {
  return "ranks " + std::to_string(a) + " and " + std::to_string(b) + " of the group";
}

// The first pair for which `says`, as (smaller, greater); (0, 0) when there is none.
template <typename Says>
std::pair<size_t, size_t> first_pair(const std::vector<RankPlace>& places, const Says& says) {
  for (size_t b = 1; b < places.size(); ++b) {
    for (size_t a = 0; a < b; ++a) {
      if (says(places[a], places[b])) return {a, b};
    }
  }
  return {0, 0};
}

bool share_gpu(const RankPlace& a, const RankPlace& b) {
  return a.uuid == b.uuid || (a.host == b.host && a.pci == b.pci);
}

}  // namespace

RankPlace rank_place_of(const cuda::DeviceInfo& device) {
  RankPlace mine;
  put(this_host(), mine.host);
  put(device.uuid, mine.uuid);
  put(device.pci, mine.pci);
  mine.pid_space = this_pid_space();
  mine.process = static_cast<int32_t>(getpid());
  mine.major = device.major;
  return mine;
}

std::vector<RankPlace> gather_places(Communicator& group, const cuda::DeviceInfo& device) {
  const RankPlace mine = rank_place_of(device);
  std::vector<RankPlace> places(static_cast<size_t>(group.size()));
  group.all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(places)));
  return places;
}

std::string shared_gpu(const std::vector<RankPlace>& places) {
  const auto [a, b] = first_pair(places, share_gpu);
  if (a == b) return "";
  return ranks_text(a, b) + " share GPU " + places[a].pci.data();
}

std::string peer_obstacle(const std::vector<RankPlace>& places, int most_ranks) {
  if (places.size() > static_cast<size_t>(most_ranks)) {
    return "mailboxes are for at most " + std::to_string(most_ranks) + " ranks, the group has " +
           std::to_string(places.size());
  }
  const auto [a, b] =
      first_pair(places, [](const RankPlace& p, const RankPlace& q) { return p.host != q.host; });
  if (a != b) return ranks_text(a, b) + " are on different hosts";
  const std::string shared = shared_gpu(places);
  // Kernels that wait for each other would wait for time slices.
  if (!shared.empty()) return shared + ": their kernels would wait for each other's time slices";
  const auto [c, d] = first_pair(places, same_process);
  if (c != d) return ranks_text(c, d) + " are one process: CUDA IPC is for different ones";
  return "";
}

}  // namespace spillway

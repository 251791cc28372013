// Where the ranks of a group sit: host and GPU. Decides which fabrics are out of the question
// before anything is tried. The rules are pure.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/cuda/device.h"
#include "parallel/communicator.h"

namespace spillway {

// Sent between ranks as it is.
struct RankPlace {
  std::array<char, 128> host{};  // name and boot: neither alone is enough
  std::array<char, 48> uuid{};   // of the GPU
  std::array<char, 32> pci{};
  uint64_t pid_space = 0;  // containers on one host count processes from 1, each
  int32_t process = 0;
  int32_t major = 0;
};

// Of this process on this GPU.
RankPlace rank_place_of(const cuda::DeviceInfo& device);
// Of every rank of the group. Collective.
std::vector<RankPlace> gather_places(Communicator& group, const cuda::DeviceInfo& device);

// CUDA IPC is for different processes.
inline bool same_process(const RankPlace& a, const RankPlace& b) {
  return a.host == b.host && a.pid_space == b.pid_space && a.process == b.process;
}

// Two ranks on one GPU: "ranks 0 and 1 share GPU 0000:1b:00.0"; "" when there are none.
std::string shared_gpu(const std::vector<RankPlace>& places);
// Why kernels of these ranks cannot write into each other's memory, as far as places tell; "".
std::string peer_obstacle(const std::vector<RankPlace>& places, int most_ranks);

}  // namespace spillway

// The chain of a step: the halves of a stage's layers one after the other, each as long as its
// slowest rank, while the bus and the disk run ahead of them. Called by stage_clock.cc. Pure.
//
// A rank on a GPU has kStreamSlots slots on the device: the copy of a streamed half starts when the
// bus and a slot are free, the half's product when the copy has come; the slot is free again when
// the product is done. Halves from the disk pass kDiskSlots slots on the host before that in the
// same manner. CPU halves start with their half, and the device goes on when both are done.
// A step starts with empty slots.
#pragma once

#include <vector>

namespace spillway {

// One half of a layer as a rank has it, in milliseconds.
struct HalfWork {
  double device_ms = 0;  // its device's products, attention and launches
  double cpu_ms = 0;     // of its threads beside the GPU, hand-over included
  double bus_ms = 0;     // the copy to a slot on the GPU
  double disk_ms = 0;    // the read into a slot on the host
};

// What the stage waits for beyond its devices' work and sums.
struct ChainWaits {
  double cpu_ms = 0;
  double bus_ms = 0;
  double disk_ms = 0;
  double total_ms() const { return cpu_ms + bus_ms + disk_ms; }
};

// ranks[r][h]: the same number of halves for every rank of the stage. base_ms[h]: how long the half
// lasts when nothing is waited for. sum_ms: of the sum over ranks that ends every half.
ChainWaits chain_waits(const std::vector<std::vector<HalfWork>>& ranks,
                       const std::vector<double>& base_ms, double sum_ms);

}  // namespace spillway

// Rates: what a rank reaches where it computes, and on the ways that spilled weights take. Measured
// ones where there are any, first estimates where not. Called by cost.cc. Pure.
#pragma once

#include "parallel/cluster_spec.h"

namespace spillway {

// 1e9 bytes and 1e9 multiply-adds a second.
struct RankRates {
  double read = 0;            // of the device that computes
  double matrix = 0;          // likewise
  double cpu_read = 0;        // of the rank's threads, while the bus copies
  double cpu_read_alone = 0;  // while it does not
  double cpu_matrix = 0;      // likewise
  double bus = 0;             // from host memory to the GPU, while the threads read
  double bus_alone = 0;       // while they do not
  double disk = 0;            // past the page cache
  double page_cache = 0;      // out of it, to memory of the process
  bool operator==(const RankRates&) const = default;
};

// gpu: the rank computes on its GPU.
RankRates rates_of(const RankSpec& spec, bool gpu);

// Shares of a GPU's measured rates that a model's products reach, from decode of 8B and 70B Q4_K_M
// (466 and 62 tok/s) and prefill of an 8B (34 600) on an H100, 2026-11-26. Of an H200's, decode is
// 6 to 15 % below.
inline constexpr double kGpuReadShare = 0.925;
inline constexpr double kGpuMatrixShare = 0.75;
// First estimates for what was not measured.
// From pinned host memory to the GPU: 52 to 55 on PCIe 5 x16 (H100, H200).
inline constexpr double kBusGbPerS = 50.0;
// A file, direct: 2.7 measured beside an H200.
inline constexpr double kDiskGbPerS = 2.0;
// A file in the page cache, copied: 25 measured beside an H100, 6 on two cores.
inline constexpr double kPageCacheGbPerS = 10.0;
// The input of a half to its CPU and the result back to the GPU, with the waits of both.
inline constexpr double kHandOverMs = 0.02;

}  // namespace spillway

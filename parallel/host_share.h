// Host share: what ranks of one host get of its memory when they read it at the same time. Called
// by stage_clock.cc. Pure.
//
// A rank's threads alone read at the rate that its probe found; those of all of the host's ranks
// together at what the probe found when they did so at once (RankSpec::together). With a number of
// threads in between the host gives what lies on the line between the two. Where nobody measured
// that, the curve of the rank's own threads is followed further: 1 / rate = c + d / threads, of its
// last two points, so that c is 1 / what the memory gives to any number of threads.
#pragma once

#include <span>

#include "parallel/cluster_spec.h"

namespace spillway {

// How many times as long a rank's threads read when `threads` threads read on its host, its own
// among them; at least 1. beside_bus: while pinned memory is copied to the ranks' GPUs.
double read_slowdown(const RankSpec& spec, int threads, bool beside_bus);
// How many times as long a copy from pinned memory to the rank's GPU takes when so many ranks of
// its host copy and read at once; at least 1.
double bus_slowdown(const RankSpec& spec, int ranks);

// Ranks of one host that are alike and read as much as each other.
struct HostReaders {
  const RankSpec* spec = nullptr;
  int count = 1;
  bool beside_bus = false;
  double ms = 0;  // that their reads take alone; afterwards, beside each other
  // Work of CPU ranks: how many times as long it takes while all of the host's ranks, `all_threads`
  // in all, are at theirs; 0: reads alone count, by what was measured of them.
  double slowdown_of_all = 0;
  int all_threads = 0;
};
// How many times as long a reader takes with `threads` threads at work on its host.
double slowdown_of(const HostReaders& one, int threads);
// All readers of one host begin at once; who is done leaves the memory to the others. busy_threads:
// of the host's other ranks, that read all the time.
void read_together(std::span<HostReaders> readers, int busy_threads);

}  // namespace spillway

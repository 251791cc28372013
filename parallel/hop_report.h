// What carries the residual stream from stage to stage: which links can go from GPU to GPU, as far
// as the ranks' places tell, and what was found at start. The rules are pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "parallel/comm_choice.h"
#include "parallel/communicator.h"
#include "parallel/rank_place.h"

namespace spillway {

// A rank of the plan before its links are made. Sent between ranks as it is.
struct HopSeat {
  RankPlace place;     // of ranks on a GPU
  int32_t gpu = 0;     // computes on it
  int32_t failed = 0;  // has an error to tell: there will be no job, and no links
};

// Of ranks [0, n_ranks) of the job, by all of them; the others take no part.
std::vector<HopSeat> gather_hop_seats(Communicator& world, int n_ranks, const HopSeat& mine);

// Why rows of `from` cannot go straight into the memory of `to`'s GPU: "", or a sentence with the
// ranks of the job. A rank that shares one of the two GPUs is in the way as well: kernels that wait
// would take its time slices.
std::string hop_obstacle(const std::vector<HopSeat>& seats, int from, int to, CommChoice choice);

// One link, as measured by its sender.
struct HopReport {
  int from = 0;
  int to = 0;
  std::string obstacle;  // why it goes through host memory; "" when it does not
  double small_us = 0;   // a hop of one row
  double gb_per_s = 0;   // of a hop of large_rows rows
  int64_t large_rows = 0;
  bool by_peer() const { return obstacle.empty(); }
};

// Reports of a rank that has no link to a GPU: each says what is in the way.
std::vector<HopReport> staged_hops(const std::vector<HopSeat>& seats, int from,
                                   const std::vector<int>& sends_to, CommChoice choice);

// All ranks' links, in rank order, on rank 0; nothing elsewhere. By ranks [0, n_ranks).
std::vector<HopReport> gather_hop_reports(Communicator& world, int n_ranks,
                                          const std::vector<HopReport>& mine);

// In lines, "" for none:
//   hops between stages
//     0 -> 1  peer, 4.1 us a row, 310 GB/s 512 rows
//     1 -> 2  host memory and MPI: ranks 1 and 2 are on different hosts
std::string hop_report_text(const std::vector<HopReport>& reports);

}  // namespace spillway

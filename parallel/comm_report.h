// What the probe of a TP group's fabrics found, and which of them carry its sums: pure, so that the
// choice is tested without GPUs. Filled by make_device_communicator(), equal on all ranks.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "parallel/comm_choice.h"

namespace spillway {

const char* comm_choice_name(CommChoice choice);  // "auto", "nccl", "peer", "staged"

// One fabric, as measured with the group's width; times are the slowest rank's.
struct FabricReport {
  bool tried = false;
  std::string obstacle;  // why it does not work; "" when it does
  double small_us = 0;   // a sum of one row; 0: not measured
  double large_us = 0;   // a sum of CommReport::large_rows rows; 0: not measured
  bool works() const { return tried && obstacle.empty(); }
};

struct CommReport {
  FabricReport peer;
  FabricReport nccl;
  int64_t large_rows = 0;  // 0: no step has enough rows to measure
  // A GPU's stores into another's memory, one pair at a time.
  struct Push {
    int from = 0;
    int to = 0;
    double gb_per_s = 0;
  };
  std::vector<Push> pushes;
  // What carries up to cuda::kPeerSmallRows rows, and more.
  CommChoice small = CommChoice::kStaged;
  CommChoice large = CommChoice::kStaged;
};

// Sets report.small and report.large. A pinned choice carries both. kAuto: small sums go by peer
// where that works, large ones by what was faster (unmeasured: peer between two ranks, NCCL between
// more), staged when neither works. Throws Error when a pinned fabric does not work: its obstacle.
void choose_fabrics(CommChoice choice, int size, CommReport& report);

// The report in a few lines, each ending with a newline, for the start of a job:
//   sums of 2 GPUs: peer up to 64 rows, nccl beyond
//     peer    4.1 us a row, 62 us 409 rows
//     nccl    11.2 us a row, 48 us 409 rows
//     0 -> 1  310 GB/s
std::string comm_report_text(const CommReport& report, int size, int64_t small_rows);

}  // namespace spillway

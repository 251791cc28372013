// Whether GPUs that reach each other's memory may be trusted with it: some machines map it and then
// lose or misplace writes (an IOMMU in between, a bad bridge). Before the first sum every rank
// writes a pattern into every other's mailbox, by kernel stores and by a copy engine, and every
// rank counts what did not arrive.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "kernels/cuda/device.h"
#include "kernels/cuda/ops.h"
#include "parallel/comm_report.h"
#include "parallel/communicator.h"

namespace spillway {

struct PeerProof {
  Communicator& group;
  const cuda::Stream& stream;
  const cuda::Exec& exec;
  const std::vector<std::byte*>& mailboxes;  // by rank, at this device's addresses
  int64_t mailbox_bytes = 0;                 // of each; zeros again afterwards
  std::byte* scratch = nullptr;              // device memory, 4 bytes a rank

  // Collective. What is wrong with which pair of ranks, or "".
  std::string run() const;
  // Collective: how fast each rank's kernels store into each other's mailbox.
  std::vector<CommReport::Push> measure() const;
  // Collective: the mailboxes as they must be before the first sum.
  void clear() const;

 private:
  int64_t section_bytes() const;
  uint32_t* section(int mailbox, int from) const;
  std::string missing(uint32_t salt, const char* how) const;
};

}  // namespace spillway

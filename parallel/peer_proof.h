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
  std::byte* scratch = nullptr;              // device memory, 4 bytes a rank at least
  int64_t scratch_bytes = 0;

  // Collective. What is wrong with which pair of ranks, or "".
  std::string run() const;
  // Collective: how fast each rank's kernels store into each other's mailbox. What went wrong on
  // which rank, or "".
  std::string measure(std::vector<CommReport::Push>& pushes) const;
  // Collective: the mailboxes and the scratch as they must be before the first sum; the same
  // answer.
  std::string clear() const;

 private:
  int64_t section_bytes() const;
  uint32_t* section(int mailbox, int from) const;
  double push_rate(int to, cuda::Event& start, cuda::Event& end) const;
  std::string missing(uint32_t salt, const char* how) const;
};

}  // namespace spillway

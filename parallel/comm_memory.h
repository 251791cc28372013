// All memory that the sums of a TP group take on one rank, whatever fabric carries them: exactly
// device_comm_bytes() and device_comm_pinned_bytes() of gpu_ledger.h. Made by
// make_device_communicator(), lent to the fabrics.
#pragma once

#include <cstdint>

#include "kernels/cuda/device.h"
#include "parallel/gpu_ledger.h"

namespace spillway {

struct CommMemory {
  CommMemory(int size, int64_t max_rows, int64_t dim)
      : piece_bytes(device_comm_piece_bytes(max_rows, dim)),
        mailbox("the mailbox of GPU sums", device_comm_mailbox_bytes(size, max_rows, dim)),
        wire("the bf16 rows of GPU sums", device_comm_wire_bytes(max_rows, dim)),
        pinned("the host's half of GPU sums", device_comm_pinned_bytes(size, max_rows, dim)) {}

  uint32_t* abort_word() const { return reinterpret_cast<uint32_t*>(pinned.data()); }
  std::byte* pieces() const { return pinned.data() + kCommWordsBytes; }  // one a rank

  int64_t piece_bytes;
  cuda::DeviceMemory mailbox;  // zeros; empty for more ranks than mailboxes are made for
  cuda::DeviceMemory wire;     // also the probe's scratch at start
  cuda::PinnedMemory pinned;
};

}  // namespace spillway

// Memory of another process's GPU, mapped here: CUDA IPC. And the proof that what is written there
// arrives. No CUDA headers, as device.h.
//   Errors: what CUDA refuses is an Error.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "kernels/cuda/device.h"
#include "kernels/cuda/ops.h"

namespace spillway::cuda {

// What another process of the same host needs to map a DeviceMemory.
struct IpcHandle {
  std::array<std::byte, 64> bytes{};
};
IpcHandle ipc_handle(const DeviceMemory& memory);

// The mapping, by the selected device, which may write there as to its own memory. The process
// that owns the memory keeps it until all mappings of it are gone.
class PeerMemory {
 public:
  PeerMemory() = default;
  explicit PeerMemory(const IpcHandle& handle);
  ~PeerMemory();
  PeerMemory(PeerMemory&& other) noexcept;
  PeerMemory& operator=(PeerMemory&& other) noexcept;
  std::byte* data() const { return data_; }

 private:
  std::byte* data_ = nullptr;
};

// Memory of another device of this process: lets the selected device write to it.
void enable_peer_access(int other_ordinal);

// A pattern by `seed` over words of memory that the device can write, and how many of the words of
// its own memory differ from it, added to *n_wrong (device memory).
void write_pattern(const Exec& exec, uint32_t* words, int64_t n, uint32_t seed);
void count_wrong(const Exec& exec, const uint32_t* words, int64_t n, uint32_t seed,
                 uint32_t* n_wrong);
// By a copy engine, between any memory that the device reaches.
void copy_on_device(const Stream& stream, void* to, const void* from, int64_t bytes);

}  // namespace spillway::cuda

// What the host does beside a stream: memory of its own that the GPU reads, calls in stream order,
// waits that leave the core to others. Beside device.h, for halves of weights that lie on the host.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "kernels/cuda/device.h"

namespace spillway::cuda {

// Pins host memory that somebody else owns, for as long as this lives. Pages that have been touched
// are pinned at 30 GB/s, others at 6. Throws Error naming the memory and the limit that forbids it.
class PinnedRange {
 public:
  PinnedRange() = default;
  PinnedRange(const std::string& name, std::byte* data, int64_t bytes);
  ~PinnedRange();
  PinnedRange(PinnedRange&& other) noexcept;
  PinnedRange& operator=(PinnedRange&& other) noexcept;

 private:
  std::byte* data_ = nullptr;
};

// call(context) on a thread of CUDA's when the stream gets there; the stream goes on when it
// returns. It must not throw and may call nothing of CUDA. May be captured: context must then live
// as long as the graph. About 40 us on top of the call.
void call_host(StreamHandle stream, void (*call)(void*), void* context);

// Waits for a stream asleep, where Stream::synchronize() spins: 20 to 50 us later.
class SleepingWait {
 public:
  SleepingWait();
  ~SleepingWait();
  SleepingWait(SleepingWait&&) = delete;
  // Throws Error with what failed on the device.
  void wait_for(const Stream& stream);

 private:
  CUevent_st* event_ = nullptr;
};

}  // namespace spillway::cuda

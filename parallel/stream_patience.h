// How long the host waits for kernels of GPUs that wait for each other, while links are examined:
// what one of them writes may not reach the other.
//   Thread: the rank's main thread. Errors: what failed on the device.
#pragma once

#include <chrono>
#include <thread>

#include "kernels/cuda/device.h"

namespace spillway {

// Waits for all that the stream was asked for. After 10 s tell_to_end() has the kernels give up,
// for which they get 10 s more. Whether it came to that.
template <typename TellToEnd>
bool waits_in_vain(const cuda::Stream& stream, const TellToEnd& tell_to_end) {
  constexpr std::chrono::seconds kPatience{10};
  using Clock = std::chrono::steady_clock;
  cuda::Event done;
  done.record(stream);
  const auto start = Clock::now();
  bool told = false;
  while (!done.reached()) {
    const auto waited = Clock::now() - start;
    if (waited > kPatience && !told) {
      tell_to_end();
      told = true;
    }
    if (waited > 2 * kPatience) break;
    std::this_thread::sleep_for(std::chrono::microseconds(20));
  }
  return told;
}

}  // namespace spillway

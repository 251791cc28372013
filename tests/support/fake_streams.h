// Streams, events and graphs of kernels/cuda/device.h and host_side.h without a GPU, for tests of
// the order in which somebody else's code uses them: fake_streams.cc defines what the CUDA library
// defines, "device memory" is the host's. Nothing runs before somebody waits; then heads of queues
// that may run are taken in a random order, one at a time, so a call of the host holds up
// everything, as it may where CUDA has one thread for the calls of all streams.
//   Capture: operations become nodes, and what joins a capture must be joined to its stream at the
//   end. A launch runs the nodes in a random order that their edges allow.
//   Thread: one.
#pragma once

#include <cstdint>
#include <functional>

#include "kernels/cuda/device.h"

namespace spillway::fake_streams {

// Runs when the stream gets there; captured, at every launch.
void enqueue(cuda::StreamHandle stream, std::function<void()> operation);
// Of the random order from now on.
void seed(uint32_t value);

}  // namespace spillway::fake_streams

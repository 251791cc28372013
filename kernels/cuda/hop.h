// Rows from one GPU into another's memory, between stages of a pipeline, in stream order on both
// sides: the sender's kernel waits until a slot of the receiver's is free, writes the rows there
// and raises a flag; the receiver's waits for the flag, takes the rows and gives the slot back.
// Neither host waits for the other.
//   Shapes: whole quads of floats, rows without gaps.
//   Invariants: a link is one sender, one receiver, two slots and four words. Its times count up by
//   one a hop, in each side's own memory, by the kernels themselves: a captured graph can be
//   replayed, and both sides call the same sequence. The rows of time t lie in slot t % 2; whoever
//   sends t waits until t - 2 was taken.
//   A kernel whose peer never comes waits until *abort is not 0, then ends; the rows are undefined.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/core/int_math.h"
#include "kernels/core/tensor.h"
#include "kernels/cuda/ops.h"

namespace spillway::cuda {

inline constexpr int kMostHopReceivers = 8;  // ranks that one rank sends to
inline constexpr int64_t kHopSlots = 2;

// Where things lie in a rank's hop memory, in bytes from its start; zeros in the beginning. Words
// are apart from each other, since two GPUs write them:
//   as receiver: full (the sender's: the time that has come), clock and blocks (its own)
//   as sender, for link i: freed (the receiver's: the time that was taken), clock and blocks
//   spare: a word for whoever examines a link
//   slots [2][max_rows][dim] f32, when it receives
struct HopLayout {
  int64_t full, receiver_clock, receiver_blocks, spare, senders, slots, bytes;
};
inline constexpr int64_t kHopWordBytes = 128;
// CUDA IPC shares the whole block that an allocation lies in; from this size on it has its own.
inline constexpr int64_t kHopMemoryUnit = int64_t{2} << 20;
constexpr HopLayout hop_layout(bool receives, int64_t max_rows, int64_t dim) {
  HopLayout out{};
  out.receiver_clock = kHopWordBytes;
  out.receiver_blocks = 2 * kHopWordBytes;
  out.spare = 3 * kHopWordBytes;
  out.senders = 4 * kHopWordBytes;
  out.slots = round_up(out.senders + kMostHopReceivers * 3 * kHopWordBytes, 4096);
  const int64_t slots = receives ? kHopSlots * max_rows * dim * 4 : 0;
  out.bytes = round_up(out.slots + slots, kHopMemoryUnit);
  return out;
}

// What kernels that wait look at and write to: pinned host memory, at its device address.
struct HopHost {
  const uint32_t* abort = nullptr;  // not 0: give up
  // What a kernel has waited for longer than about a millisecond: 0 nothing, kWaitsForRows, or
  // kWaitsForSlot + i for link i.
  uint32_t* waits = nullptr;
};
inline constexpr uint32_t kWaitsForRows = 1;
inline constexpr uint32_t kWaitsForSlot = 2;

// A link as its sender sees it.
struct HopTo {
  float* slots = nullptr;           // the receiver's
  uint32_t* full = nullptr;         // the receiver's
  const uint32_t* freed = nullptr;  // the rest is its own
  uint32_t* clock = nullptr;
  uint32_t* blocks = nullptr;
};
struct HopSender {
  HopTo to[kMostHopReceivers];
  int n_links = 0;
  int64_t slot_floats = 0;
  HopHost host;
};
// A link as its receiver sees it.
struct HopReceiver {
  const float* slots = nullptr;
  int64_t slot_floats = 0;
  const uint32_t* full = nullptr;
  uint32_t* freed = nullptr;  // the sender's
  uint32_t* clock = nullptr;
  uint32_t* blocks = nullptr;
  HopHost host;
};

// The links of two ranks' hop memories, at addresses of the side that asks. link: which of the
// sender's it is.
HopTo hop_to(std::byte* own, std::byte* receivers, int link, int64_t max_rows, int64_t dim);
HopReceiver hop_from(std::byte* own, std::byte* senders, int link, int64_t max_rows, int64_t dim,
                     const HopHost& host);

// x, f32 [n, dim], to every receiver, n * dim at most slot_floats.
void hop_push(const Exec& exec, const HopSender& sender, View2D<const float> x);
// x = the next rows of the link; not more of them than were sent.
void hop_take(const Exec& exec, const HopReceiver& receiver, View2D<float> x);

}  // namespace spillway::cuda

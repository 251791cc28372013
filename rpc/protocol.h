// Numbers that both ends of the control plane must agree on. Included by rpc/*.cc only.
#pragma once

#include <chrono>
#include <cstdint>

namespace spillway {

// Raised when a message of proto/coordinator.proto changes its meaning; builds with different
// numbers refuse each other instead of misunderstanding each other.
inline constexpr uint32_t kProtocol = 3;

// An Assignment carries the whole plan with its ledger: about 100 bytes a layer and rank, so that
// 64 MiB is beyond any plan.
inline constexpr int kMaxAssignmentBytes = 64 << 20;
// Workers send names and numbers only. Small, since a stranger may send this much before the
// secret is looked at.
inline constexpr int kMaxWorkerMessageBytes = 1 << 20;

// How often a rank that waits for the plan hears that the coordinator lives.
inline constexpr std::chrono::milliseconds kAlivePeriod{500};
// What a worker adds to the coordinator's silence timeout before it takes the coordinator for gone.
inline constexpr std::chrono::milliseconds kAliveSlack{1000};

}  // namespace spillway

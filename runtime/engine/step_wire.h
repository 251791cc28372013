// StepWire: a StepBatch as bytes, sent from the front to all ranks with one broadcast (two when the
// step is long). Native byte order: all ranks run the same program on like machines.
//   Thread: main. Allocates nothing after construction.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/plan.h"
#include "runtime/stage/step_batch.h"

namespace spillway {

// What the watchdog grants a step beyond its deadline: ten times what the plan predicts for it.
std::chrono::milliseconds step_allowance(const Plan& plan, const StepBatch& batch);

class StepWire {
 public:
  explicit StepWire(const Plan& plan);

  // On the front; does nothing when it is alone.
  void send(const StepBatch& batch, Communicator& world);
  // On all others: blocks until the front's next step is there.
  void receive(StepBatch& batch, Communicator& world);

 private:
  // Most decode steps of a few sequences fit; longer ones need a second broadcast.
  static constexpr int64_t kFirstBytes = 4096;
  std::vector<std::byte> bytes_;
};

}  // namespace spillway

// StepWire: a StepBatch as bytes, posted from the front to every rank in one message (two when the
// step is long), so that the front goes on while a later stage still computes steps before it.
// Native byte order: all ranks run the same program on like machines.
//   Thread: main. Allocates nothing after construction.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/open_posts.h"
#include "parallel/plan.h"
#include "runtime/stage/step_batch.h"

namespace spillway {

// What the watchdog grants a step beyond its deadline: ten times what the plan predicts for it and,
// with several stages, for the steps before it that a stage may still be busy with: whoever is
// ready for the step waits for those as well.
class StepAllowance {
 public:
  explicit StepAllowance(const Plan& plan);
  // Once a step, in order.
  std::chrono::milliseconds next(const StepBatch& batch);

 private:
  const Plan& plan_;
  std::vector<std::chrono::milliseconds> last_;  // of the last steps, in turn
  size_t at_ = 0;
};

class StepWire {
 public:
  // world must outlive it.
  StepWire(const Plan& plan, Communicator& world);

  // On the front; does nothing when it is alone. Waits until the other ranks of the front's stage
  // have it: they wait for nothing else, and the front's GPU is about to wait for theirs, perhaps
  // with so much launched that the front cannot move its posts along any more. Waits for the others
  // only when one has not yet received the step that is one step more than the plan's stages
  // behind.
  void send(const StepBatch& batch);
  // On the front: waits until all ranks have received all steps.
  void finish();
  // On all others: blocks until the front's next step is there.
  void receive(StepBatch& batch);

 private:
  // Most decode steps of a few sequences fit; longer ones need a second message. Below what fabrics
  // take without asking the receiver: Open MPI's shared memory 4096 with its header.
  static constexpr int64_t kFirstBytes = 2048;

  struct Buffer {
    std::vector<std::byte> bytes;
    OpenPosts posts;
  };

  Communicator& world_;
  std::vector<int> companions_;  // other ranks of the front's stage
  std::vector<int64_t> companion_tickets_;
  std::vector<Buffer> buffers_;  // used in turn
  size_t turn_ = 0;
};

}  // namespace spillway

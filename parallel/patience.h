// Patience: how long a rank that failed waits for the others to hear of it. They may sit in a call
// that nothing of its failure reaches, such as NCCL's connecting, and never come to where the ranks
// agree. Past the limit the communicators of this process are aborted, with the failure as the
// reason: the call that waits throws it, and the caller ends the job.
//   Thread: made and destroyed by the rank's main thread; a thread of its own aborts.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "parallel/communicator.h"
#include "parallel/watchdog.h"

namespace spillway {

// With the coordinator's and the others' way to the end a job is gone within 10 s.
inline constexpr std::chrono::seconds kPatienceWithOthers{6};

class Patience {
 public:
  // reason: this rank's failure; "": it has none, and waits as long as it takes. group must outlive
  // this.
  Patience(Communicator& group, const std::string& reason,
           std::chrono::milliseconds limit = kPatienceWithOthers);

 private:
  std::unique_ptr<Watchdog> watchdog_;
};

}  // namespace spillway

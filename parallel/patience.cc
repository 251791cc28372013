// See patience.h.
#include "parallel/patience.h"

namespace spillway {

Patience::Patience(Communicator& group, const std::string& reason,
                   std::chrono::milliseconds limit) {
  if (reason.empty()) return;
  watchdog_ = std::make_unique<Watchdog>(
      limit, [] { return std::string(); },
      [&group, reason](const std::string&) { group.abort(reason); });
  watchdog_->begin("waiting for the others", limit);
}

}  // namespace spillway

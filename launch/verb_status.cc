// spillway status HOST:PORT: asks a running job's coordinator.
#include <iostream>

#include "launch/verbs.h"
#include "rpc/job_status.h"

namespace spillway {

int verb_status(const Options& options) {
  std::cout << status_table(fetch_status(options.address, options.secret, 3.0));
  return 0;
}

}  // namespace spillway

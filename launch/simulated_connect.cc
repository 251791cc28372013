// See simulated_connect.h. Called by job.cc.
#include "launch/simulated_connect.h"

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "kernels/core/error.h"

namespace spillway {

void simulate_connect_fault(int rank) {
  const char* text = std::getenv("SPILLWAY_SIMULATE_CONNECT");
  if (text == nullptr || *text == '\0') return;
  int whose = -1;
  std::array<char, 8> verb{};
  const int read = std::sscanf(text, "rank %d %7s", &whose, verb.data());  // NOLINT(cert-err34-c)
  const std::string deed = verb.data();
  if (read != 2 || (deed != "hangs" && deed != "fails")) {
    throw Error("\"" + std::string(text) + "\" is no fault of connecting", "simulated fault",
                "such as \"rank 1 hangs\": docs/failure.md");
  }
  const bool mine = rank == whose;
  if (mine) std::fprintf(stderr, "spillway: a fault is simulated: %s while connecting\n", text);
  if (mine && deed == "fails") throw Error("it was told to fail", "connecting");
  while (mine || deed == "fails") std::this_thread::sleep_for(std::chrono::hours(1));
}

}  // namespace spillway

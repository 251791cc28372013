// Seconds: of the clock that measurements of rates use.
#pragma once

#include <chrono>

namespace spillway {

inline double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace spillway

// Time that this process has computed for: what a test of complexity bounds, since the clock on the
// wall counts whatever else the machine does as well.
#pragma once

#include <ctime>

namespace spillway::testing {

// Seconds of all threads together since the process began.
inline double cpu_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

}  // namespace spillway::testing

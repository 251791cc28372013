// What the program calls itself: --version, and what it writes into files.
#pragma once

namespace spillway {

inline constexpr const char* kProgram = "spillway 0.1.0";

}  // namespace spillway

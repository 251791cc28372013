// What happens when a mapped model file becomes shorter, or its disk fails, while it is read: the
// kernel answers the read with SIGBUS. The guard says so in one line and ends the process with 1.
#pragma once

#include <string>

namespace spillway {

// Call once, before MPI starts (Open MPI leaves a handler alone that is there already) and before
// any thread. path: the file that the line names, with its size now and then.
void guard_mapped_file(const std::string& path);

}  // namespace spillway

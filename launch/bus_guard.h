// What happens when a mapped file becomes shorter, or its disk fails, while it is read: the kernel
// answers the read with SIGBUS. The guard says so in one line and ends the process with 1.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace spillway {

// Call once, before MPI starts (Open MPI leaves a handler alone that is there already) and before
// any thread. path: the file that the line names, with its size now and then.
void guard_mapped_file(const std::string& path);

// A spill file's mapping (runtime/io/spill_file.h), of which the line says where the disk failed: a
// page of it that the page cache lost is read again by whoever touches it. where: its folder and
// the ledger's name. One at a time, the last; an empty one: none. Call from the thread that starts
// steps, between two of them.
void guard_spill_file(std::span<const std::byte> mapped, const std::string& where);

}  // namespace spillway

// See reserve.h.
#include "kernels/core/reserve.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#ifndef MADV_POPULATE_WRITE  // Linux 5.14; older C libraries lack the name
#define MADV_POPULATE_WRITE 23
#endif

namespace spillway {

// In slices, because the kernel holds the address space's lock while it fills one: a thread that
// maps memory meanwhile (gRPC's, to send a heartbeat) waits for it, and a rank that filled 1 GiB in
// one call was silent for over 3 s on a busy machine, which the coordinator takes for dead.
int populate(std::byte* base, int64_t bytes) {
  constexpr int64_t kSlice = 64 << 20;
  for (int64_t at = 0; at < bytes; at += kSlice) {
    const auto n = static_cast<size_t>(std::min(kSlice, bytes - at));
    if (madvise(base + at, n, MADV_POPULATE_WRITE) == 0) continue;
    if (errno != EINVAL) return errno;
    std::memset(base + at, 0, n);  // a kernel that does not know the advice
  }
  return 0;
}

Error cannot_reserve(const std::string& name, int64_t bytes, int error_number, const char* todo) {
  return Error("cannot reserve " + std::to_string(bytes) + " bytes: " + std::strerror(error_number),
               "host memory for " + name, todo);
}

}  // namespace spillway

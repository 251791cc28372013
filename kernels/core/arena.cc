// See arena.h.
#include "kernels/core/arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "kernels/core/check.h"
#include "kernels/core/error.h"
#include "kernels/core/simulated_fault.h"

#ifndef MADV_POPULATE_WRITE  // Linux 5.14; older C libraries lack the name
#define MADV_POPULATE_WRITE 23
#endif

namespace spillway {
namespace {

Error cannot_reserve(const std::string& name, int64_t bytes, int error_number) {
  return Error("cannot reserve " + std::to_string(bytes) + " bytes: " + std::strerror(error_number),
               "host memory for " + name,
               "free memory on this host, or let less be planned for it: --host-memory, -c");
}

// Asks for every page of [base, base + bytes) now. Returns 0 or the error's number.
//
// In slices, because the kernel holds the address space's lock while it fills one: a thread that
// maps memory meanwhile (gRPC's, to send a heartbeat) waits for it, and a rank that filled 1 GiB in
// one call was silent for over 3 s on a busy machine, which the coordinator takes for dead.
int populate(std::byte* base, size_t bytes) {
  constexpr size_t kSlice = 64 << 20;
  for (size_t at = 0; at < bytes; at += kSlice) {
    const size_t n = std::min(kSlice, bytes - at);
    if (madvise(base + at, n, MADV_POPULATE_WRITE) == 0) continue;
    if (errno != EINVAL) return errno;
    std::memset(base + at, 0, n);  // a kernel that does not know the advice
  }
  return 0;
}

}  // namespace

Arena::Arena(std::string name, int64_t bytes) : name_(std::move(name)), bytes_(bytes) {
  CHECK_GE(bytes, 0);
  if (bytes == 0) return;
  if (fault_simulated("allocate host", name_)) throw cannot_reserve(name_, bytes, ENOMEM);
  const auto size = static_cast<size_t>(bytes);
  void* base = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) throw cannot_reserve(name_, bytes, errno);
  // 2 MiB pages spare the TLB in matrix products that walk gigabytes; only advice, may fail.
  madvise(base, size, MADV_HUGEPAGE);
  base_ = static_cast<std::byte*>(base);
  owned_ = true;
  if (const int error_number = populate(base_, size); error_number != 0) {
    munmap(base, size);  // the destructor of what was not constructed never runs
    throw cannot_reserve(name_, bytes, error_number);
  }
}

Arena::Arena(std::string name, std::byte* base, int64_t bytes)
    : name_(std::move(name)), base_(base), bytes_(bytes) {
  CHECK_GE(bytes, 0);
  CHECK(base != nullptr || bytes == 0);
  CHECK_EQ(reinterpret_cast<uintptr_t>(base) % kAlignment, 0u);
}

Arena::~Arena() {
  if (owned_) munmap(base_, static_cast<size_t>(bytes_));
}

Arena::Arena(Arena&& other) noexcept
    : name_(std::move(other.name_)),
      base_(std::exchange(other.base_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)),
      used_(std::exchange(other.used_, 0)),
      frozen_(std::exchange(other.frozen_, true)),
      owned_(std::exchange(other.owned_, false)) {}

std::byte* Arena::take(int64_t bytes) {
  CHECK(!frozen_);
  CHECK_GE(bytes, 0);
  CHECK_LE(bytes, bytes_ - used_);
  CHECK_LE(rounded(bytes), rounded(bytes_) - used_);
  std::byte* start = base_ + used_;
  used_ += rounded(bytes);
  return start;
}

}  // namespace spillway

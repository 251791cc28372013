// See host_pages.h.
#include "kernels/core/host_pages.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

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
               "free memory on this host, or let less be spilled to it: --host-memory");
}

// In slices, as Arena does: the address space is locked while the kernel fills one. Returns 0 or
// the error's number.
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

}  // namespace

HostPages::HostPages(const std::string& name, int64_t bytes, ThreadPool& pool) {
  CHECK_GE(bytes, 0);
  if (bytes == 0) return;
  if (fault_simulated("allocate host", name)) throw cannot_reserve(name, bytes, ENOMEM);
  const auto size = static_cast<size_t>(bytes);
  void* base = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) throw cannot_reserve(name, bytes, errno);
  madvise(base, size, MADV_HUGEPAGE);  // only advice, may fail
  auto* data = static_cast<std::byte*>(base);
  std::vector<int> errors(static_cast<size_t>(pool.size()));
  pool.run([&](int worker) {
    constexpr int64_t kHugePage = 2 << 20;
    const Range part = pool.part(worker, bytes, kHugePage);
    errors[static_cast<size_t>(worker)] = populate(data + part.begin, part.size());
  });
  const auto failed = std::find_if(errors.begin(), errors.end(), [](int e) { return e != 0; });
  if (failed != errors.end()) {
    munmap(base, size);  // the destructor of what was not constructed never runs
    throw cannot_reserve(name, bytes, *failed);
  }
  data_ = data;
  bytes_ = bytes;
}

HostPages::~HostPages() {
  if (data_ != nullptr) munmap(data_, static_cast<size_t>(bytes_));
}
HostPages::HostPages(HostPages&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
HostPages& HostPages::operator=(HostPages&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

}  // namespace spillway

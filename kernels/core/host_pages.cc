// See host_pages.h.
#include "kernels/core/host_pages.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "kernels/core/check.h"
#include "kernels/core/reserve.h"
#include "kernels/core/simulated_fault.h"

namespace spillway {
namespace {

constexpr char kTodo[] = "free memory on this host, or let less be spilled to it: --host-memory";

}  // namespace

HostPages::HostPages(const std::string& name, int64_t bytes, ThreadPool& pool) {
  CHECK_GE(bytes, 0);
  if (bytes == 0) return;
  if (fault_simulated("allocate host", name)) throw cannot_reserve(name, bytes, ENOMEM, kTodo);
  const auto size = static_cast<size_t>(bytes);
  void* base = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) throw cannot_reserve(name, bytes, errno, kTodo);
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
    throw cannot_reserve(name, bytes, *failed, kTodo);
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

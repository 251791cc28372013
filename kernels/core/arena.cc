// See arena.h.
#include "kernels/core/arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "kernels/core/check.h"
#include "kernels/core/reserve.h"
#include "kernels/core/simulated_fault.h"

namespace spillway {
namespace {

constexpr char kTodo[] =
    "free memory on this host, or let less be planned for it: --host-memory, -c";

}  // namespace

Arena::Arena(std::string name, int64_t bytes) : name_(std::move(name)), bytes_(bytes) {
  CHECK_GE(bytes, 0);
  if (bytes == 0) return;
  if (fault_simulated("allocate host", name_)) throw cannot_reserve(name_, bytes, ENOMEM, kTodo);
  const auto size = static_cast<size_t>(bytes);
  void* base = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) throw cannot_reserve(name_, bytes, errno, kTodo);
  // 2 MiB pages spare the TLB in matrix products that walk gigabytes; only advice, may fail.
  madvise(base, size, MADV_HUGEPAGE);
  base_ = static_cast<std::byte*>(base);
  owned_ = true;
  if (const int error_number = populate(base_, bytes); error_number != 0) {
    munmap(base, size);  // the destructor of what was not constructed never runs
    throw cannot_reserve(name_, bytes, error_number, kTodo);
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

// Memory of dry GPUs, pinned memory, copies and fills, and memory of other processes. Device memory
// is pages of this process; freed ones stay reserved, so that no address means two allocations. See
// dry_gpu.h.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <mutex>

#include "tests/dry_gpu/dry_gpu.h"

namespace dry_gpu {
namespace {

struct Block {
  size_t bytes;
  Where where;
  bool freed;
};
struct Memory {
  std::mutex mutex;
  std::map<uintptr_t, Block> blocks;
  size_t device_bytes = 0;
};
Memory& memory() {
  static auto& all = *new Memory;
  return all;
}
constexpr size_t kReserved = size_t{600} << 20;  // as a driver takes for itself
const char* const kKinds[] = {"ranges of pageable memory", "allocations or ranges pinned",
                              "allocations on a GPU"};

constexpr size_t kPage = 4096;

size_t pages_of(size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

void add_block(const void* data, size_t bytes, Where where) {
  Memory& all = memory();
  const std::lock_guard lock(all.mutex);
  all.blocks[reinterpret_cast<uintptr_t>(data)] = {bytes, where, false};
  if (where == Where::kDevice) all.device_bytes += bytes;
  count_alive(kKinds[static_cast<int>(where)], 1);
}

// keep: its addresses, as those of something freed.
void remove_block(const void* data, Where where, bool keep) {
  Memory& all = memory();
  const std::lock_guard lock(all.mutex);
  const auto found = all.blocks.find(reinterpret_cast<uintptr_t>(data));
  if (found == all.blocks.end() || found->second.where != where) {
    breach("what is freed or unpinned is no beginning of such memory");
  }
  Block& block = found->second;
  if (block.freed) breach("memory is freed twice");
  if (where == Where::kDevice) all.device_bytes -= block.bytes;
  count_alive(kKinds[static_cast<int>(where)], -1);
  if (!keep) {
    all.blocks.erase(found);
    return;
  }
  block.freed = true;
  mmap(const_cast<void*>(data), pages_of(block.bytes), PROT_NONE,
       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

size_t free_bytes() {
  const std::lock_guard lock(memory().mutex);
  return settings().bytes - kReserved - memory().device_bytes;
}

void* take_pages(size_t bytes, Where where) {
  void* data =
      mmap(nullptr, pages_of(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) breach("this machine has no memory for an allocation");
  add_block(data, bytes, where);
  return data;
}

cudaError_t allocate(void** out, size_t bytes, Where where) {
  if (bytes >= settings().refused_bytes || (where == Where::kDevice && bytes > free_bytes())) {
    return refuse(cudaErrorMemoryAllocation);
  }
  *out = take_pages(bytes, where);
  return cudaSuccess;
}

void check_kind(cudaMemcpyKind kind, Where to, Where from) {
  const bool device_to = to == Where::kDevice;
  const bool device_from = from == Where::kDevice;
  const bool good = kind == cudaMemcpyDefault ||
                    (kind == cudaMemcpyHostToDevice && device_to && !device_from) ||
                    (kind == cudaMemcpyDeviceToHost && !device_to && device_from) ||
                    (kind == cudaMemcpyDeviceToDevice && device_to && device_from);
  if (!good) breach("a copy between other kinds of memory than it says");
}

// What CUDA asks of memory to pin: whole pages of it, none of them pinned already, that can be
// written.
void check_pinnable(uintptr_t begin, size_t bytes) {
  if (bytes == 0) breach("nothing is pinned");
  const uintptr_t first = begin / kPage * kPage;
  const uintptr_t end = first + pages_of(begin - first + bytes);
  {
    const std::lock_guard lock(memory().mutex);
    for (const auto& [start, block] : memory().blocks) {
      const bool apart = start + pages_of(block.bytes) <= first || start >= end;
      if (!apart && !block.freed) breach("memory is pinned twice, or a page of it");
    }
  }
  uintptr_t at = first;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; at < end && std::getline(maps, line);) {
    uintptr_t from = 0;
    uintptr_t to = 0;
    char write = 0;
    if (std::sscanf(line.c_str(), "%" SCNxPTR "-%" SCNxPTR " %*c%c", &from, &to, &write) != 3)
      continue;
    if (from <= at && at < to && write == 'w') at = to;
  }
  if (at < end) breach("memory is pinned that cannot be written");
}

// A handle: the process and the bytes that it is about.
struct Shared {
  pid_t process;
  size_t bytes;
};
// Whoever opens a handle maps all of the blocks that its memory lies in.
constexpr size_t kIpcBlock = size_t{2} << 20;

// Whole pages of zeros are given back: a probe's GiB of zeros takes no memory and no time.
void fill(void* data, int value, size_t bytes) {
  const size_t before = std::min(bytes, -reinterpret_cast<uintptr_t>(data) % kPage);
  const size_t pages = value == 0 ? (bytes - before) / kPage * kPage : 0;
  auto* at = static_cast<std::byte*>(data);
  std::memset(at, value, before);
  if (pages > 0 && madvise(at + before, pages, MADV_DONTNEED) != 0) breach("pages stay");
  std::memset(at + before + pages, value, bytes - before - pages);
}

}  // namespace

Where examine(const void* data, size_t bytes, const std::string& what) {
  const Memory& all = memory();
  const std::lock_guard lock(memory().mutex);
  const auto at = reinterpret_cast<uintptr_t>(data);
  const auto after = all.blocks.upper_bound(at);
  if (after == all.blocks.begin()) return Where::kPageable;
  const auto& [start, block] = *std::prev(after);
  if (at - start >= block.bytes) return Where::kPageable;
  if (block.freed) breach(what + " memory that was freed");
  if (at - start + bytes > block.bytes) {
    breach(what + " " + std::to_string(bytes) + " bytes at " + std::to_string(at - start) +
           " of an allocation of " + std::to_string(block.bytes));
  }
  return block.where;
}

void* symbol_memory(size_t bytes) {
  void* data = take_pages(bytes, Where::kDevice);
  count_alive(kKinds[static_cast<int>(Where::kDevice)], -1);
  return data;
}

}  // namespace dry_gpu

using dry_gpu::enter;
using dry_gpu::enter_synchronous;
using dry_gpu::Where;

extern "C" {

cudaError_t cudaMalloc(void** out, size_t bytes) {
  enter_synchronous("cudaMalloc");
  return dry_gpu::allocate(out, bytes, Where::kDevice);
}
cudaError_t cudaMallocHost(void** out, size_t bytes) {
  enter_synchronous("cudaMallocHost");
  return dry_gpu::allocate(out, bytes, Where::kPinned);
}
cudaError_t cudaFree(void* data) {
  enter_synchronous("cudaFree");
  dry_gpu::wait_for_all_streams();
  dry_gpu::remove_block(data, Where::kDevice, true);
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* data) {
  enter_synchronous("cudaFreeHost");
  dry_gpu::remove_block(data, Where::kPinned, true);
  return cudaSuccess;
}
cudaError_t cudaHostRegister(void* data, size_t bytes, unsigned) {
  enter_synchronous("cudaHostRegister");
  dry_gpu::check_pinnable(reinterpret_cast<uintptr_t>(data), bytes);
  dry_gpu::add_block(data, bytes, Where::kPinned);
  return cudaSuccess;
}
cudaError_t cudaHostUnregister(void* data) {
  enter_synchronous("cudaHostUnregister");
  dry_gpu::remove_block(data, Where::kPinned, false);
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* available, size_t* total) {
  enter("cudaMemGetInfo");
  *available = dry_gpu::free_bytes();
  *total = dry_gpu::settings().bytes;
  return cudaSuccess;
}

// A mapping is as many bytes, which nobody else sees.
cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t* handle, void* data) {
  enter("cudaIpcGetMemHandle");
  const std::lock_guard lock(dry_gpu::memory().mutex);
  const auto found = dry_gpu::memory().blocks.find(reinterpret_cast<uintptr_t>(data));
  if (found == dry_gpu::memory().blocks.end() || found->second.where != Where::kDevice) {
    dry_gpu::breach("a handle is wanted for what is no beginning of an allocation on a GPU");
  }
  const dry_gpu::Shared shared{getpid(), found->second.bytes};
  if (shared.bytes % dry_gpu::kIpcBlock != 0) {
    dry_gpu::breach("a handle is wanted for part of a block, whose rest others would see");
  }
  *handle = {};
  std::memcpy(handle, &shared, sizeof(shared));
  return cudaSuccess;
}
cudaError_t cudaIpcOpenMemHandle(void** out, cudaIpcMemHandle_t handle, unsigned) {
  enter_synchronous("cudaIpcOpenMemHandle");
  if (!dry_gpu::settings().ipc) return dry_gpu::refuse(cudaErrorInvalidValue);
  dry_gpu::Shared shared{};
  std::memcpy(&shared, &handle, sizeof(shared));
  if (shared.process == getpid()) return dry_gpu::refuse(cudaErrorInvalidValue);
  *out = dry_gpu::take_pages(shared.bytes, Where::kDevice);
  return cudaSuccess;
}
cudaError_t cudaIpcCloseMemHandle(void* data) {
  enter_synchronous("cudaIpcCloseMemHandle");
  dry_gpu::wait_for_all_streams();
  dry_gpu::remove_block(data, Where::kDevice, true);
  return cudaSuccess;
}

// Pageable memory is staged: the call returns when the host may go on with it.
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  enter("cudaMemcpyAsync");
  const Where where_to = dry_gpu::examine(to, bytes, "a copy to");
  const Where where_from = dry_gpu::examine(from, bytes, "a copy from");
  dry_gpu::check_kind(kind, where_to, where_from);
  const bool pageable = where_to == Where::kPageable || where_from == Where::kPageable;
  if (pageable && dry_gpu::is_capturing(stream)) {
    dry_gpu::breach("a captured copy from or to memory that is not pinned");
  }
  dry_gpu::enqueue(stream, [=] {
    if (dry_gpu::examine(to, bytes, "a copy to") != where_to ||
        dry_gpu::examine(from, bytes, "a copy from") != where_from) {
      dry_gpu::breach("memory of a copy was freed or unpinned before the copy ran");
    }
    std::memmove(to, from, bytes);
  });
  if (pageable) return cudaStreamSynchronize(stream);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* data, int value, size_t bytes, cudaStream_t stream) {
  enter("cudaMemsetAsync");
  if (dry_gpu::examine(data, bytes, "a fill of") != Where::kDevice) {
    dry_gpu::breach("a fill of memory that is not the GPU's");
  }
  dry_gpu::enqueue(stream, [=] {
    dry_gpu::examine(data, bytes, "a fill of");
    dry_gpu::fill(data, value, bytes);
  });
  return cudaSuccess;
}
cudaError_t cudaMemset(void* data, int value, size_t bytes) {
  enter_synchronous("cudaMemset");
  if (dry_gpu::examine(data, bytes, "a fill of") != Where::kDevice) {
    dry_gpu::breach("a fill of memory that is not the GPU's");
  }
  dry_gpu::fill(data, value, bytes);
  return cudaSuccess;
}

}  // extern "C"

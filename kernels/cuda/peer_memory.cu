// See peer_memory.h. The pattern depends on the seed and on the place of each word, so that a word
// that went astray shows as well. Bytes: 4 a word, written over the link or read.
#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/core/simulated_fault.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/peer_memory.h"

namespace spillway::cuda {
namespace {

constexpr unsigned kThreads = 256;
constexpr int64_t kMostBlocks = 1024;

__device__ __forceinline__ uint32_t pattern(uint32_t seed, int64_t i) {
  uint32_t h = seed * 0x9e3779b9u + static_cast<uint32_t>(i) * 0x85ebca6bu;
  h ^= h >> 15;
  return h * 0xc2b2ae35u ^ static_cast<uint32_t>(i >> 32);
}

__global__ void __launch_bounds__(kThreads)
    write_kernel(uint32_t* words, int64_t n, uint32_t seed) {
  wait_for_previous();
  const int64_t stride = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < n; i += stride) {
    words[i] = pattern(seed, i);
  }
}

__global__ void __launch_bounds__(kThreads)
    count_kernel(const uint32_t* words, int64_t n, uint32_t seed, uint32_t* n_wrong) {
  wait_for_previous();
  const int64_t stride = int64_t{gridDim.x} * kThreads;
  uint32_t wrong = 0;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < n; i += stride) {
    if (__ldcg(words + i) != pattern(seed, i)) ++wrong;
  }
  if (wrong > 0) atomicAdd(n_wrong, wrong);
}

dim3 blocks_for(int64_t n) {
  return dim3(static_cast<unsigned>(std::min(div_up(n, int64_t{kThreads}), kMostBlocks)));
}

static_assert(sizeof(cudaIpcMemHandle_t) == sizeof(IpcHandle));

}  // namespace

IpcHandle ipc_handle(const DeviceMemory& memory) {
  cudaIpcMemHandle_t theirs;
  CU(cudaIpcGetMemHandle(&theirs, memory.data()));
  IpcHandle out;
  std::memcpy(out.bytes.data(), &theirs, sizeof(theirs));
  return out;
}

PeerMemory::PeerMemory(const IpcHandle& handle) {
  cudaIpcMemHandle_t theirs;
  std::memcpy(&theirs, handle.bytes.data(), sizeof(theirs));
  void* data = nullptr;
  const cudaError_t status =
      fault_simulated("map", "peer memory")
          ? cudaErrorMapBufferObjectFailed
          : cudaIpcOpenMemHandle(&data, theirs, cudaIpcMemLazyEnablePeerAccess);
  if (status != cudaSuccess) (void)cudaGetLastError();  // it is told here, not by the next call
  check_cuda(status, "cudaIpcOpenMemHandle");
  data_ = static_cast<std::byte*>(data);
}
PeerMemory::~PeerMemory() {
  if (data_ != nullptr) (void)cudaIpcCloseMemHandle(data_);
}
PeerMemory::PeerMemory(PeerMemory&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
PeerMemory& PeerMemory::operator=(PeerMemory&& other) noexcept {
  std::swap(data_, other.data_);
  return *this;
}

void enable_peer_access(int other_ordinal) {
  const cudaError_t status = cudaDeviceEnablePeerAccess(other_ordinal, 0);
  if (status != cudaSuccess) (void)cudaGetLastError();
  if (status != cudaErrorPeerAccessAlreadyEnabled) check_cuda(status, "cudaDeviceEnablePeerAccess");
}

void write_pattern(const Exec& exec, uint32_t* words, int64_t n, uint32_t seed) {
  if (n == 0) return;
  launch(exec, write_kernel, blocks_for(n), dim3(kThreads), 0, words, n, seed);
}

void count_wrong(const Exec& exec, const uint32_t* words, int64_t n, uint32_t seed,
                 uint32_t* n_wrong) {
  if (n == 0) return;
  launch(exec, count_kernel, blocks_for(n), dim3(kThreads), 0, words, n, seed, n_wrong);
}

void copy_on_device(const Stream& stream, void* to, const void* from, int64_t bytes) {
  if (bytes == 0) return;
  CU(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, stream.handle()));
}

}  // namespace spillway::cuda

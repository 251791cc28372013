// See host_side.h.
#include "kernels/cuda/host_side.h"

#include <utility>

#include "kernels/core/simulated_fault.h"
#include "kernels/cuda/cuda_check.h"

namespace spillway::cuda {

PinnedRange::PinnedRange(const std::string& name, std::byte* data, int64_t bytes) {
  if (bytes == 0) return;
  const cudaError_t status =
      fault_simulated("pin", name)
          ? cudaErrorMemoryAllocation
          : cudaHostRegister(data, static_cast<size_t>(bytes), cudaHostRegisterPortable);
  if (status != cudaSuccess) {
    (void)cudaGetLastError();  // it is told here, not by the next call
    throw Error(
        "CUDA cannot pin host memory: " + std::string(cudaGetErrorString(status)),
        name + ", " + std::to_string(bytes >> 20) + " MiB",
        "raise the limit of locked memory (ulimit -l), or spill less to the host (--host-memory)");
  }
  data_ = data;
}
PinnedRange::~PinnedRange() {
  if (data_ != nullptr) (void)cudaHostUnregister(data_);
}
PinnedRange::PinnedRange(PinnedRange&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)) {}
PinnedRange& PinnedRange::operator=(PinnedRange&& other) noexcept {
  std::swap(data_, other.data_);
  return *this;
}

void call_host(StreamHandle stream, void (*call)(void*), void* context) {
  CU(cudaLaunchHostFunc(stream, call, context));
}

SleepingWait::SleepingWait() {
  CU(cudaEventCreateWithFlags(&event_, cudaEventBlockingSync | cudaEventDisableTiming));
}
SleepingWait::~SleepingWait() {
  if (event_ != nullptr) (void)cudaEventDestroy(event_);
}
void SleepingWait::wait_for(const Stream& stream) {
  CU(cudaEventRecord(event_, stream.handle()));
  CU(cudaEventSynchronize(event_));
}

}  // namespace spillway::cuda

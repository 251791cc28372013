// How every kernel is launched: on the op's stream, with programmatic dependent launch when the
// device has it. Kernels launched so begin while the kernel before them still runs: they call
// wait_for_previous() before they touch anything that a kernel writes (weights they may read
// before), and let_next_start() once their own blocks are under way.
#pragma once

#include <cuda_runtime.h>

#include <utility>

#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/ops.h"

namespace spillway::cuda {

__device__ __forceinline__ void wait_for_previous() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ __forceinline__ void let_next_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Every kernel of the house calls wait_for_previous(), so a chain of them is ordered as a stream
// is: who waits for a kernel has also waited for all that came before it.
// cluster: blocks along x that run together and read each other's shared memory; sm_90 on.
template <typename... Params, typename... Args>
void launch_clusters(const Exec& exec, unsigned cluster, void (*kernel)(Params...), dim3 grid,
                     dim3 block, size_t shared_bytes, Args&&... args) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = exec.stream;
  cudaLaunchAttribute attributes[2]{};
  unsigned n = 0;
  if (exec.overlap) {
    attributes[n].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[n++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (cluster > 1) {
    attributes[n].id = cudaLaunchAttributeClusterDimension;
    attributes[n++].val.clusterDim = {cluster, 1, 1};
  }
  config.attrs = attributes;
  config.numAttrs = n;
  CU(cudaLaunchKernelEx(&config, kernel, static_cast<Params>(std::forward<Args>(args))...));
}
template <typename... Params, typename... Args>
void launch(const Exec& exec, void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes,
            Args&&... args) {
  launch_clusters(exec, 1, kernel, grid, block, shared_bytes, std::forward<Args>(args)...);
}

// Lets a kernel have all the shared memory that a block can get. Returns it.
template <typename... Params>
int64_t allow_shared(void (*kernel)(Params...)) {
  int device = 0;
  int bytes = 0;
  CU(cudaGetDevice(&device));
  CU(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  CU(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  return bytes;
}

}  // namespace spillway::cuda

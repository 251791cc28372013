// CUDA's return codes as Errors. For sources in kernels/cuda alone: it includes CUDA's headers.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "kernels/core/error.h"

namespace spillway::cuda {

// Throws Error "what: CUDA's own words" with the device when `status` is not success.
void check_cuda(cudaError_t status, const char* what);

}  // namespace spillway::cuda

#define CU(call) ::spillway::cuda::check_cuda((call), #call)

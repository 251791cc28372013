// See wide.h: the choice of a kernel by type, the input's description.
#include "kernels/cuda/wide.h"

#include <cuda_runtime.h>

#include <algorithm>

#include "kernels/core/check.h"
#include "kernels/core/dispatch.h"
#include "kernels/core/error.h"
#include "kernels/core/int_math.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/wide_launch.h"
#include "kernels/cuda/wide_map.cuh"

namespace spillway::cuda {
namespace {

using EncodeTiled = decltype(&cuTensorMapEncodeTiled);

EncodeTiled find_encoder() {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result{};
#if CUDART_VERSION >= 12050
  CU(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault,
                                      &result));
#else
  CU(cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &found, cudaEnableDefault, &result));
#endif
  if (found == nullptr || result != cudaDriverEntryPointSuccess) {
    throw Error("the CUDA driver has no cuTensorMapEncodeTiled", "products of many rows",
                "a driver for CUDA 12.0 or later has it");
  }
  return reinterpret_cast<EncodeTiled>(found);
}

}  // namespace

CUtensorMap wide_input_map(const Input& input) {
  static const EncodeTiled encode = find_encoder();
  CUtensorMap map{};
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(input.cols),
                               static_cast<cuuint64_t>(input.n)};
  const cuuint64_t stride = sizes[0] * 2;
  const cuuint32_t box[2] = {64, kWideColumns};
  const cuuint32_t steps[2] = {1, 1};
  const CUresult result =
      encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, input.bf16, sizes, &stride, box, steps,
             CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  CHECK_EQ(static_cast<int>(result), static_cast<int>(CUDA_SUCCESS));
  return map;
}

#ifdef SPILLWAY_WGMMA

bool wide_here(const Exec& exec) { return exec.major == 9; }

void wide_product(const Exec& exec, const ProductArgs& args, const GatedOutput* gated) {
  dispatch(args.type, [&](auto tag) {
    if constexpr (decltype(tag)::Traits::kBits != 0) {
      launch_wide<decltype(tag)::kType>(exec, args, gated);
    }
  });
}

#else

bool wide_here(const Exec&) { return false; }

void wide_product(const Exec&, const ProductArgs&, const GatedOutput*) {
  CHECK(false);  // nobody asks for what is not here
}

#endif

}  // namespace spillway::cuda

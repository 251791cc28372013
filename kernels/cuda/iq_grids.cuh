// The devices' copy of the grids of the IQ2 and IQ3 types, one in every source that includes this
// (17 KB): see kernels/core/iq_grids.h.
#pragma once

#include <cuda_runtime.h>

#include "kernels/core/iq_grid_tables.h"
#include "kernels/core/quant.h"

namespace spillway::cuda {

static __device__ const Grid<512> kDeviceIq2Xxs = iq_grid_tables::iq2_xxs();
static __device__ const Grid<1024> kDeviceIq2Xs = iq_grid_tables::iq2_xs();
static __device__ const Grid<2048> kDeviceIq2S = iq_grid_tables::iq2_s();
static __device__ const Grid<256> kDeviceIq3Xxs = iq_grid_tables::iq3_xxs();
static __device__ const Grid<512> kDeviceIq3S = iq_grid_tables::iq3_s();

// The words of a grid type; for other types nothing that is read.
template <QuantType Q>
__device__ __forceinline__ const uint32_t* device_grid() {
  if constexpr (Q == QuantType::kIQ2_XXS) return kDeviceIq2Xxs.words;
  if constexpr (Q == QuantType::kIQ2_XS) return kDeviceIq2Xs.words;
  if constexpr (Q == QuantType::kIQ2_S) return kDeviceIq2S.words;
  if constexpr (Q == QuantType::kIQ3_XXS) return kDeviceIq3Xxs.words;
  if constexpr (Q == QuantType::kIQ3_S) return kDeviceIq3S.words;
  return nullptr;
}

}  // namespace spillway::cuda

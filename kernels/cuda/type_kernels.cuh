// All product kernels of one quant type. Included by <type>.cu, one translation unit a type, which
// says DEFINE_TYPE_KERNELS(kQ4_K).
#pragma once

#include "kernels/cuda/dequant.cuh"
#include "kernels/cuda/gemv.cuh"
#include "kernels/cuda/tile.cuh"
#include "kernels/cuda/tile_strip.cuh"
#include "kernels/cuda/type_table.h"

#define DEFINE_TYPE_KERNELS(type)                                         \
  namespace spillway::cuda {                                              \
  template <>                                                             \
  const TypeKernels& type_kernels<QuantType::type>() {                    \
    static constexpr TypeKernels kKernels{                                \
        launch_gemv<QuantType::type>, launch_tiles<QuantType::type>,      \
        launch_strips<QuantType::type>, launch_dequant<QuantType::type>}; \
    return kKernels;                                                      \
  }                                                                       \
  }

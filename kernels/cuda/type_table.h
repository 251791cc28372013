// The product kernels of a quant type as function pointers: declared here, defined in <type>.cu.
#pragma once

#include "kernels/cuda/product.h"

namespace spillway::cuda {

struct TypeKernels {
  void (*gemv)(const Exec&, const ProductArgs&, const GatedOutput*);
  void (*tiles)(const Exec&, const ProductArgs&);                       // int8 input
  void (*strips)(const Exec&, const ProductArgs&, const GatedOutput*);  // bf16 input
  void (*dequant)(const Exec&, const PackedMatrix&, const uint32_t* grid, uint16_t* out);
};

template <QuantType Q>
const TypeKernels& type_kernels();

}  // namespace spillway::cuda

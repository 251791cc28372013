// Products with plain floats: product_plain.cu. Called by matmul.cc.
#pragma once

#include "kernels/cuda/product.h"

namespace spillway::cuda {

void plain_gemv(const Exec& exec, const ProductArgs& args);
void plain_bf16(const Exec& exec, const PackedMatrix& w, uint16_t* out);

}  // namespace spillway::cuda

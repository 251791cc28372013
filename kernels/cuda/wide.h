// Products of many rows of bf16 input with packed weights on sm_90a (tile_wide.cuh), as functions
// that exist in every build: wide.cc says "not here" where the build has no code for sm_90a.
#pragma once

#include "kernels/cuda/product.h"

namespace spillway::cuda {

inline constexpr int kWideColumns = 128;  // rows of input a block

// Whether this build and the device have them.
bool wide_here(const Exec& exec);

// args.in.bf16 is read. Not for plain floats; gated: kBf16Form alone.
void wide_product(const Exec& exec, const ProductArgs& args, const GatedOutput* gated);

}  // namespace spillway::cuda

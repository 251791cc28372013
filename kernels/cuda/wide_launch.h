// The launchers of tile_wide.cuh, one a quant type: declared here, instantiated in
// wide_<family>.cu, which are compiled for sm_90a alone.
#pragma once

#include "kernels/cuda/product.h"

namespace spillway::cuda {

template <QuantType Q>
void launch_wide(const Exec& exec, const ProductArgs& args, const GatedOutput* gated);

}  // namespace spillway::cuda

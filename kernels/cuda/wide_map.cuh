// How the copy engine reads the input of tile_wide.cuh. Apart from wide.h, since it needs the
// driver's header; the driver itself is asked for at run time and not linked.
#pragma once

#include <cuda.h>

#include "kernels/cuda/ops.h"

namespace spillway::cuda {

// Boxes of kWideColumns rows and 64 columns of input.bf16, swizzled by 128 bytes.
CUtensorMap wide_input_map(const Input& input);

}  // namespace spillway::cuda

// What the product kernels share: their arguments. matmul.cc fills them and picks a kernel; the
// launchers are in type_table.h (quantised) and plain.h.
#pragma once

#include <cstdint>

#include "kernels/core/packed_matrix.h"
#include "kernels/cuda/ops.h"

namespace spillway::cuda {

// One of up to three matrices whose outputs lie side by side, all of one type and width.
struct ProductPart {
  const std::byte* data = nullptr;
  int32_t rows = 0;
  int32_t first_group = 0;   // groups of the parts before
  int32_t first_column = 0;  // of out
};

struct ProductArgs {
  ProductPart parts[3];
  int n_parts = 0;
  QuantType type = QuantType::kF32;
  GroupLayout layout;
  int cols = 0;
  int n_groups = 0;  // of all parts
  Input in;
  const uint32_t* grid = nullptr;  // the type's grid, if it has one
  float* out = nullptr;
  int64_t out_stride = 0;
  bool add = false;  // to what is there
};

// act(gate x) * up x: gate and up are parts 0 and 1; the result goes to `to` in `forms`.
struct GatedOutput {
  bool gelu = false;
  unsigned forms = 0;
  Input to;
};

// The device's copy of a grid; nullptr for types without one. Uploaded by select_device.
const uint32_t* grid_on_device(QuantType type);
void upload_grids();

}  // namespace spillway::cuda

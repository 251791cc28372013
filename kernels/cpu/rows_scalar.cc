// The table of this instruction set and its row and attention kernels. Compiled with the flags of
// its suffix (kernels/CMakeLists.txt); see lanes.h for what may not be included here.
#include "kernels/cpu/attend_lanes.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/row_lanes.h"

namespace spillway::cpu::lanes_scalar {

extern constexpr KernelTable kTable = {
    product,   product_partial, rms_norm_row, quantize_row, swiglu_row,
    geglu_row, to_f16_row,      attend,       exp_row,      search_blocks,
};

}  // namespace spillway::cpu::lanes_scalar

// The searches of K-quants' scales in this instruction set. Compiled with the flags of its suffix
// (kernels/CMakeLists.txt); see lanes.h for what may not be included here.
#include "kernels/cpu/block_search_lanes.h"
#include "kernels/cpu/kernel_table.h"

namespace spillway::cpu::lanes_avx512 {

void search_blocks(const SearchInput& in, const SearchShape& shape, SearchResult* out) {
  if (shape.has_minimum) {
    search_scaled_above_minimum(in, shape, out);
  } else {
    search_scaled(in, shape, out);
  }
}

}  // namespace spillway::cpu::lanes_avx512

// The matrix products of this instruction set. Compiled with the flags of its suffix
// (kernels/CMakeLists.txt); see lanes.h for what may not be included here.
#include "kernels/cpu/product_lanes.h"

namespace spillway::cpu::lanes_avx2 {

void product(QuantType type, const ProductArgs& args) { run_product<SumF32>(type, args); }

void product_partial(QuantType type, const ProductArgs& args) { run_product<SumF64>(type, args); }

}  // namespace spillway::cpu::lanes_avx2

// The products of many rows on sm_90a of the other IQ types.
#include "kernels/cuda/tile_wide.cuh"

namespace spillway::cuda {

template void launch_wide<QuantType::kIQ4_XS>(const Exec&, const ProductArgs&, const GatedOutput*);
template void launch_wide<QuantType::kIQ2_XXS>(const Exec&, const ProductArgs&, const GatedOutput*);
template void launch_wide<QuantType::kIQ2_XS>(const Exec&, const ProductArgs&, const GatedOutput*);
template void launch_wide<QuantType::kIQ2_S>(const Exec&, const ProductArgs&, const GatedOutput*);
template void launch_wide<QuantType::kIQ3_XXS>(const Exec&, const ProductArgs&, const GatedOutput*);
template void launch_wide<QuantType::kIQ3_S>(const Exec&, const ProductArgs&, const GatedOutput*);

}  // namespace spillway::cuda

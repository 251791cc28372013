// The products of many rows on sm_90a of types of blocks of 32.
#include "kernels/cuda/tile_wide.cuh"

namespace spillway::cuda {

template void launch_wide<QuantType::kQ4_0>(const Exec&, const ProductArgs&, const GatedOutput*);
template void launch_wide<QuantType::kQ4_1>(const Exec&, const ProductArgs&, const GatedOutput*);
template void launch_wide<QuantType::kQ5_0>(const Exec&, const ProductArgs&, const GatedOutput*);
template void launch_wide<QuantType::kQ5_1>(const Exec&, const ProductArgs&, const GatedOutput*);
template void launch_wide<QuantType::kQ8_0>(const Exec&, const ProductArgs&, const GatedOutput*);
template void launch_wide<QuantType::kIQ4_NL>(const Exec&, const ProductArgs&, const GatedOutput*);
template void launch_wide<QuantType::kMXFP4>(const Exec&, const ProductArgs&, const GatedOutput*);

}  // namespace spillway::cuda

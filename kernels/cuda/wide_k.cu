// The products of many rows on sm_90a of the K-quants.
#include "kernels/cuda/tile_wide.cuh"

namespace spillway::cuda {

template void launch_wide<QuantType::kQ2_K>(const Exec&, const ProductArgs&, const GatedOutput*);
template void launch_wide<QuantType::kQ3_K>(const Exec&, const ProductArgs&, const GatedOutput*);
template void launch_wide<QuantType::kQ4_K>(const Exec&, const ProductArgs&, const GatedOutput*);
template void launch_wide<QuantType::kQ5_K>(const Exec&, const ProductArgs&, const GatedOutput*);
template void launch_wide<QuantType::kQ6_K>(const Exec&, const ProductArgs&, const GatedOutput*);

}  // namespace spillway::cuda

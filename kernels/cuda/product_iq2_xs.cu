// The product kernels of IQ2_XS.
#include "kernels/cuda/type_kernels.cuh"

DEFINE_TYPE_KERNELS(kIQ2_XS)

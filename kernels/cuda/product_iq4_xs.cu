// The product kernels of IQ4_XS.
#include "kernels/cuda/type_kernels.cuh"

DEFINE_TYPE_KERNELS(kIQ4_XS)

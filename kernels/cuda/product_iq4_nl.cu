// The product kernels of IQ4_NL.
#include "kernels/cuda/type_kernels.cuh"

DEFINE_TYPE_KERNELS(kIQ4_NL)

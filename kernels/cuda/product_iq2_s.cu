// The product kernels of IQ2_S.
#include "kernels/cuda/type_kernels.cuh"

DEFINE_TYPE_KERNELS(kIQ2_S)

// The product kernels of IQ3_S.
#include "kernels/cuda/type_kernels.cuh"

DEFINE_TYPE_KERNELS(kIQ3_S)

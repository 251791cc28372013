// The product kernels of Q4_K.
#include "kernels/cuda/type_kernels.cuh"

DEFINE_TYPE_KERNELS(kQ4_K)

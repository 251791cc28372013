// The product kernels of Q2_K.
#include "kernels/cuda/type_kernels.cuh"

DEFINE_TYPE_KERNELS(kQ2_K)

// The product kernels of Q6_K.
#include "kernels/cuda/type_kernels.cuh"

DEFINE_TYPE_KERNELS(kQ6_K)

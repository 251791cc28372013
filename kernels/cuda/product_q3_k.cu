// The product kernels of Q3_K.
#include "kernels/cuda/type_kernels.cuh"

DEFINE_TYPE_KERNELS(kQ3_K)

// The product kernels of Q4_0.
#include "kernels/cuda/type_kernels.cuh"

DEFINE_TYPE_KERNELS(kQ4_0)

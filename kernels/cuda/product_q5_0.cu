// The product kernels of Q5_0.
#include "kernels/cuda/type_kernels.cuh"

DEFINE_TYPE_KERNELS(kQ5_0)

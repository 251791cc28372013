// The product kernels of Q8_0.
#include "kernels/cuda/type_kernels.cuh"

DEFINE_TYPE_KERNELS(kQ8_0)

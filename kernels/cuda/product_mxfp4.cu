// The product kernels of MXFP4.
#include "kernels/cuda/type_kernels.cuh"

DEFINE_TYPE_KERNELS(kMXFP4)

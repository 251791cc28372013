// The product kernels of IQ3_XXS.
#include "kernels/cuda/type_kernels.cuh"

DEFINE_TYPE_KERNELS(kIQ3_XXS)

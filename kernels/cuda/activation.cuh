// exp, silu and gelu with the CPU's bits (its lane_math.h has the same steps): used by the kernels
// of gated products and activations.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace spillway::cuda {

// 2^n of a normal float; for any other n some float.
__device__ __forceinline__ float power_of_two(int n) {
  return __uint_as_float(static_cast<uint32_t>(n + 127) << 23);
}

// e^x = 2^n e^r with n = round(x / ln 2); ln 2 is subtracted in two parts (Cody and Waite), the
// polynomial is Taylor's to r^7. Below 1 ulp where the result is normal; NaN gives NaN.
__device__ __forceinline__ float exp_as_cpu(float x) {
  // Beyond these the result is 0 or infinity. Written so that NaN passes (second operand wins).
  x = -104.0f > x ? -104.0f : x;
  x = 89.0f < x ? 89.0f : x;
  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
  const float shifted = __fmaf_rn(x, 1.44269504f, 12582912.0f);
  const float n = __fsub_rn(shifted, 12582912.0f);
  const int exponent = __float_as_int(shifted) - 0x4b400000;
  float r = __fmaf_rn(n, -0x1.62e4p-1f, x);
  r = __fmaf_rn(n, -0x1.7f7d1cp-20f, r);
  float p = 1.0f / 5040;
  p = __fmaf_rn(p, r, 1.0f / 720);
  p = __fmaf_rn(p, r, 1.0f / 120);
  p = __fmaf_rn(p, r, 1.0f / 24);
  p = __fmaf_rn(p, r, 1.0f / 6);
  p = __fmaf_rn(p, r, 0.5f);
  p = __fmaf_rn(p, r, 1.0f);
  p = __fmaf_rn(p, r, 1.0f);
  // 2^n in two factors, so that results under 2^-126 become subnormals.
  const int half = exponent >> 1;
  p = __fmul_rn(p, power_of_two(half));
  return __fmul_rn(p, power_of_two(exponent - half));
}

// x / (1 + e^-x).
__device__ __forceinline__ float silu(float x) {
  return __fdiv_rn(x, __fadd_rn(1.0f, exp_as_cpu(__fsub_rn(0.0f, x))));
}

// x / (1 + e^-2u), u = sqrt(2/pi) (x + 0.044715 x^3): gelu's tanh form without its cancellation.
__device__ __forceinline__ float gelu(float x) {
  // -2 sqrt(2/pi) and 0.044715 times it.
  const float factor = __fmaf_rn(__fmul_rn(x, x), -0.0713548163f, -1.59576912f);
  return __fdiv_rn(x, __fadd_rn(1.0f, exp_as_cpu(__fmul_rn(x, factor))));
}

// act(gate) * up.
__device__ __forceinline__ float gated(float gate, float up, bool use_gelu) {
  return __fmul_rn(use_gelu ? gelu(gate) : silu(gate), up);
}

}  // namespace spillway::cuda

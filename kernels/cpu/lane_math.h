// exp, silu and gelu over sixteen lanes, from the operations of lanes.h only, so that every
// instruction set gives the same bits. Called by row_lanes.h and attend_lanes.h.
#pragma once

#include "kernels/cpu/lanes.h"

namespace spillway::cpu::SPILLWAY_LANES {

// e^x = 2^n e^r with n = round(x / ln 2) and |r| <= ln 2 / 2. ln 2 is subtracted in two parts
// (Cody and Waite): the first has 9 trailing zero bits, so n times it is exact. The polynomial is
// Taylor's to r^7, whose remainder is below 6e-9. 2^n is applied in two factors, so that results
// under 2^-126 become subnormals. Error below 1 ulp where the result is normal (measured: 0.88);
// exp(0) is exactly 1; -infinity gives 0; NaN gives NaN.
inline F32x16 exp(F32x16 x) {
  // Beyond these the result is 0 or infinity. Written so that NaN passes (second operand wins).
  x = max(splat(-104.0f), x);
  x = min(splat(89.0f), x);
  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
  const F32x16 magic = splat(12582912.0f);
  const F32x16 shifted = fma(x, splat(1.44269504f), magic);
  const F32x16 n = sub(shifted, magic);
  const I32x16 exponent = sub(bits(shifted), splat_int(0x4b400000));
  F32x16 r = fma(n, splat(-0x1.62e4p-1f), x);
  r = fma(n, splat(-0x1.7f7d1cp-20f), r);
  F32x16 p = splat(1.0f / 5040);
  p = fma(p, r, splat(1.0f / 720));
  p = fma(p, r, splat(1.0f / 120));
  p = fma(p, r, splat(1.0f / 24));
  p = fma(p, r, splat(1.0f / 6));
  p = fma(p, r, splat(0.5f));
  p = fma(p, r, splat(1.0f));
  p = fma(p, r, splat(1.0f));
  const I32x16 half = half_towards_minus(exponent);
  const I32x16 rest = sub(exponent, half);
  const I32x16 bias = splat_int(127);
  p = mul(p, from_bits(shift_left(add(half, bias), 23)));
  return mul(p, from_bits(shift_left(add(rest, bias), 23)));
}

// x / (1 + e^-x). For x below about -89 the result is -0, for +infinity x, for NaN NaN; -infinity
// gives NaN (-infinity / infinity).
inline F32x16 silu(F32x16 x) {
  const F32x16 e = exp(sub(splat(0.0f), x));
  return div(x, add(splat(1.0f), e));
}

// x / (1 + e^-2u) with u = sqrt(2/pi) (x + 0.044715 x^3), which is x/2 (1 + tanh u) without its
// cancellation for negative u. Ends as silu's do: below about -10 the result is -0.
inline F32x16 gelu(F32x16 x) {
  // -2 sqrt(2/pi) and 0.044715 times it.
  const F32x16 factor = fma(mul(x, x), splat(-0.0713548163f), splat(-1.59576912f));
  const F32x16 e = exp(mul(x, factor));
  return div(x, add(splat(1.0f), e));
}

}  // namespace spillway::cpu::SPILLWAY_LANES

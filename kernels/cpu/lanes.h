// Sixteen lanes in the instruction set of the translation unit that includes this: the vector types
// that every ISA kernel is written in once (product_lanes.h, row_lanes.h, attend_lanes.h). Because
// all three sets have the same sixteen lanes, the same fused multiply-adds and the same reduction
// tree, they give equal bits.
//
// Only *_scalar.cc, *_avx2.cc and *_avx512.cc include this. Everything lies in a namespace of its
// own per set (SPILLWAY_LANES), so that no inline function compiled with AVX-512 can be picked by
// the linker for a processor without it. For the same reason none of these headers uses the
// standard library or anything of the house but plain structs.
#pragma once

#if defined(__AVX512F__)
#include "kernels/cpu/lanes_avx512.h"
#define SPILLWAY_LANES lanes_avx512
#elif defined(__AVX2__)
#include "kernels/cpu/lanes_avx2.h"
#define SPILLWAY_LANES lanes_avx2
#else
#include "kernels/cpu/lanes_scalar.h"
#define SPILLWAY_LANES lanes_scalar
#endif

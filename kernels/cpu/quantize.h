// Quantisation: floats to the blocks of a GGUF file, for `spillway quantize`. Never called in a
// step.
//   Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 MXFP4 F16 BF16: equal bit for bit to the reference quantisers of the
//     format, for values that those can write.
//   Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS: weighted least squares, drawn in
//     block_search_lanes.h; equal bits on every instruction set and with any number of threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/core/quant.h"
#include "kernels/cpu/ops.h"

namespace spillway::cpu {

// Whether quantize() writes this type.
bool can_quantize(QuantType type);

// The greatest magnitude that the type writes without cutting: a value beyond it comes back as the
// greatest that its block can hold, never as an infinity. Infinite for F32 and BF16.
float largest_value(QuantType type);

// x as rows of the type lie in a file: out has quant_bytes(type, x.size()) bytes. x.size() must be
// a multiple of the type's block; all values finite.
void quantize(const Exec& exec, QuantType type, std::span<const float> x, std::byte* out);

// Index of the first value that is not finite or beyond `largest`; -1 when there is none.
int64_t first_unfit(const Exec& exec, std::span<const float> x, float largest);

}  // namespace spillway::cpu

// The types whose scales are searched for: K-quants and IQ4. Called by quantize.cc alone.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/ops.h"

namespace spillway::cpu {

bool is_searched(QuantType type);
float largest_searched_value(QuantType type);

// n values, whole blocks, on this thread.
void quantize_searched(Isa isa, QuantType type, const float* x, int64_t n, std::byte* out);

}  // namespace spillway::cpu

// How fast the selected GPU reads its memory: the rate that bounds decode. The launcher's probe
// asks once, before the plan.
#pragma once

#include "kernels/cuda/device.h"

namespace spillway::cuda {

// 1e9 bytes a second: the best of five reads of 1 GiB, or of a quarter of the free memory if that
// is less. Takes that memory and gives it back, waits for the stream; under 50 ms. 0 when less than
// 16 MiB can be had.
double measure_read_gb_per_s(const Stream& stream);

}  // namespace spillway::cuda

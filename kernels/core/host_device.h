// Marks functions that run on the host and on a device. Code marked so calls nothing else of the
// standard library than what is constexpr, and has no tables in memory.
#pragma once

#if defined(__CUDACC__)
#define SPILLWAY_HOST_DEVICE __host__ __device__
#else
#define SPILLWAY_HOST_DEVICE
#endif

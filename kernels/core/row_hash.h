// The hash of rows of floats: the sum, modulo 2^64, of a hash of every value with its place. A sum,
// so that any number of threads may add in any order; every flipped bit changes it, since a place's
// hash is one-to-one. Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, 2014,
// has the mixing.
#pragma once

#include <cstdint>

#include "kernels/core/host_device.h"

namespace spillway {

// index: row * columns + column.
SPILLWAY_HOST_DEVICE constexpr uint64_t value_hash(uint64_t index, uint32_t bits) {
  uint64_t z = (index + 1) * 0x9E3779B97F4A7C15u + bits;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

}  // namespace spillway

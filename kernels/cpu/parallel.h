// How an op divides its work over the pool. Used by the op files of this folder only.
#pragma once

#include <cstdint>

#include "kernels/cpu/ops.h"

namespace spillway::cpu {

// Below this many elementary steps (about 5 us of work) waking the workers costs more than it
// saves. The choice changes no bits: every op computes a row in the same way on any worker.
inline constexpr int64_t kSerialWork = 16 * 1024;

// body(Range) over disjoint parts of [0, n); `work` is the whole op's number of elementary steps.
template <typename Body>
void parallel_for(const Exec& exec, int64_t n, int64_t work, const Body& body) {
  CHECK(exec.pool != nullptr);
  if (n <= 0) return;
  if (exec.pool->size() == 1 || n == 1 || work < kSerialWork) {
    body(Range{0, n});
    return;
  }
  exec.pool->share(n, body);
}

}  // namespace spillway::cpu

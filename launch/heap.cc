// See heap.h.
#include "launch/heap.h"

#include <malloc.h>

namespace spillway {

void bound_heap() {
#ifdef M_ARENA_MAX  // glibc
  mallopt(M_ARENA_MAX, 2);
  // By itself the border rises to the largest block that was ever freed, up to 32 MiB.
  mallopt(M_MMAP_THRESHOLD, 128 << 10);
#endif
}

}  // namespace spillway

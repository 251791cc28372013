// For tests: ranks that connect badly, which no CPU rank does by itself. docs/failure.md.
#pragma once

namespace spillway {

// SPILLWAY_SIMULATE_CONNECT="rank 1 hangs": that rank never comes back from here, with its
// heartbeats going on, as in a driver's call. "rank 1 fails": it throws Error, and the others never
// come back, as in ncclCommInitRank. Without it nothing happens. Main thread, while connecting.
void simulate_connect_fault(int rank);

}  // namespace spillway

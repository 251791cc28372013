// The supervisor: under mpirun every rank is two processes, a small parent that waits and the
// worker that does everything else. The parent names a worker that a signal ended ("rank 1 (pid 77
// on host a) was ended by signal 9 (Killed) in step 57") and turns that into exit code 1; when
// mpirun or the parent dies, the worker dies with it. Called first in main, before any thread.
#pragma once

#include "runtime/engine/metrics.h"

namespace spillway {

// Memory shared by both processes: what the worker was doing when it ended.
struct WorkerNote {
  Metrics metrics;
};

// Rank and size as mpirun's environment says; size 0 when there is no mpirun.
struct LaunchedAs {
  int rank = 0;
  int size = 0;
};
LaunchedAs launched_as();

// Without mpirun: returns a note at once. Under mpirun: forks; returns in the worker, while the
// parent waits for it and exits with its code, never returning. Throws RankError when fork fails.
WorkerNote* supervise(const LaunchedAs& launched);

}  // namespace spillway

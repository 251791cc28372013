// MpiCommunicator: ranks of an MPI job, host memory, Open MPI's own transports. MPI must be
// initialised with MPI_THREAD_FUNNELED (launch/bring_up.cc does). Every wait polls and looks for
// abort(), so a lost peer never blocks this process for ever; it yields the core while it waits,
// since ranks may share cores.
#pragma once

#include <cstdint>
#include <memory>

#include "parallel/communicator.h"

namespace spillway {

// The job's MPI_COMM_WORLD, duplicated. staging_bytes: what all_reduce may hold at once; larger
// vectors go in pieces. Allocated here, nothing later.
std::unique_ptr<Communicator> make_mpi_communicator(int64_t staging_bytes = 1 << 20);

}  // namespace spillway

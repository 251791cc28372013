// bring_up: who am I: MPI rank, host, local rank. The only file of launch/ that sees MPI.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "parallel/communicator.h"

namespace spillway {

// Owns MPI's lifetime: initialised here when mpirun started us, finalised by finish().
//   Thread: main only (MPI_THREAD_FUNNELED).
struct World {
  std::unique_ptr<Communicator> communicator;  // all ranks of the job; solo without mpirun
  int rank = 0;
  int size = 1;
  int local_rank = 0;
  int local_size = 1;
  std::string host;
  int n_hosts = 1;
  std::vector<int> hosts = {0};  // of each rank, the first rank on its host
  bool mpi = false;

  bool front() const { return rank == 0; }
};

// launched_size: ranks that mpirun started, 0 when there is no mpirun.
World bring_up(int launched_size);
// Orderly end, collective. Not called after a fault: the process exits without it.
void finish(World& world);

// An error that every rank of the job throws at the same place: the front alone prints it.
class SharedError : public Error {
 public:
  using Error::Error;
};

// An error of this rank alone, before the ranks know each other: it says so itself.
class RankError : public Error {
 public:
  using Error::Error;
};

// One error for all: when any rank's `error` is not empty, every rank throws it as SharedError,
// with the rank that had it unless all had the same. Collective.
void agree(World& world, const std::string& error);
// Every rank's text on every rank, at most 1000 bytes each. Collective.
std::vector<std::string> gather_texts(World& world, const std::string& mine);
// The front's text on every rank, at most 1000 bytes. Collective.
std::string share_text(World& world, const std::string& text);
// That rank's text on every rank, however long. Collective.
std::string share_from(World& world, int rank, const std::string& text);

}  // namespace spillway

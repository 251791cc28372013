// Mesh: the groups that a plan needs: the whole job, this rank's TP group, and pipeline links.
//   Owns its communicators. Built collectively by all ranks from the same plan.
#pragma once

#include <memory>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/plan.h"

namespace spillway {

struct Mesh {
  std::unique_ptr<Communicator> world;  // ranks as in the plan; rank 0 is the front
  std::unique_ptr<Communicator> tp;     // this rank's stage, in TP order
  int rank = 0;
  int stage = 0;
  // Hop: rank j of a stage receives from rank j mod (previous stage's TP degree); all ranks of a
  // stage hold equal bits. World ranks; -1 / empty at the ends.
  int receives_from = -1;
  std::vector<int> sends_to;

  bool front() const { return rank == 0; }
};

// world may have more ranks than the plan: those get tp == nullptr and stage -1 and stay idle.
Mesh build_mesh(const Plan& plan, std::unique_ptr<Communicator> world);

}  // namespace spillway

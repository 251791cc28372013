// SoloCommunicator: a group of one. Collectives are the identity, send and recv are bugs.
#pragma once

#include <memory>

#include "parallel/communicator.h"

namespace spillway {

std::unique_ptr<Communicator> make_solo_communicator();

}  // namespace spillway

// What the ranks of a group decide together, so that all go the same way or fail with one voice.
// Collective over the group.
#pragma once

#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "parallel/communicator.h"

namespace spillway {

// The first rank's text that is not "", with the rank in front of it; "" when no rank has one.
// ranks: the group's by their numbers in the job; empty: the place in the group is named.
std::string first_obstacle(Communicator& group, const std::string& mine,
                           const std::vector<int>& ranks = {});
double greatest(Communicator& group, double mine);

// What `step` throws as an Error, in its words, or "".
template <typename Step>
std::string obstacle_of(const Step& step) {
  try {
    step();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace spillway

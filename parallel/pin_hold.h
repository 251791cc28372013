// What --place and -ngl keep out of the memory of a plan's devices, and what in it: where they and
// not the memory are why a plan is as it is, `plan` says so. Called by explain.cc. Pure.
#pragma once

#include <cstdint>
#include <string>

#include "parallel/planner.h"

namespace spillway {

struct PinHold {
  std::string flags;         // "-ngl 40", "--place 'layers 0-9 ffn = cpu'"; "" where there are none
  int64_t off_bytes = 0;     // of weights that they keep off the memory of their ranks' devices
  int64_t kept_bytes = 0;    // of weights that they keep in it, of ranks that spill others
  bool all_spilled = false;  // all that is spilled they have placed
  std::string note;          // what -ngl does with the other layers, where there are some
};

PinHold pin_hold(const Plan& plan, const ModelSpec& model, const PlanRequest& request);

}  // namespace spillway

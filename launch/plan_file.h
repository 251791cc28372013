// A plan as a file of pins: what `plan --toml` writes, to be edited and given back with --plan. And
// the command line as CLI11 can read it: a plan file's keys as flags, llama.cpp's -ngl and -ts
// under their long names.
#pragma once

#include <string>
#include <vector>

#include "parallel/plan.h"

namespace spillway {

// Keys are the long flags: split, order, place, ctx-size, kv-type, device, ubatch-size. Comments
// say what the plan was made of.
std::string plan_toml(const Plan& plan);

// The arguments with the keys of --plan FILE after the verb, but for those that the line sets
// itself: a split in the file gives way to any of --split, --tp, --pp, --layers and -ts. Throws
// Error when the file cannot be read or names what is no pin.
std::vector<std::string> expanded_arguments(const std::vector<std::string>& arguments);

}  // namespace spillway

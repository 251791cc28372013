// GGUF metadata and tensor table -> ModelSpec. Checks that every tensor of the architecture is
// there with the shape that the metadata promises; throws Error naming key or tensor, file and
// offset. Called by the coordinator's planner, by every rank, and by `inspect` and `plan`.
#pragma once

#include "parallel/model_spec.h"
#include "runtime/io/gguf.h"

namespace spillway {

// A file of which the header alone is there has no divisors of Llama 3's RoPE: ones stand for them.
ModelSpec read_model_spec(const Gguf& gguf);

}  // namespace spillway

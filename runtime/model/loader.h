// Loader: this rank's ranges of every tensor, read from the mapped file once and packed into its
// weight arena. Takes exactly the ledger's weight buffers, in the ledger's order.
#pragma once

#include <cstdint>
#include <functional>

#include "kernels/core/arena.h"
#include "kernels/cpu/ops.h"
#include "parallel/plan.h"
#include "runtime/io/gguf.h"
#include "runtime/model/weights.h"

namespace spillway {

// on_progress(done, total) in bytes of the arena, after every layer; may be empty.
Weights load_weights(const Gguf& gguf, const ModelSpec& model, const Plan& plan, int rank,
                     const cpu::Exec& exec, Arena& arena,
                     const std::function<void(int64_t, int64_t)>& on_progress);

}  // namespace spillway

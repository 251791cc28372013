// Loader: this rank's ranges of every tensor, read from the mapped file once and packed into its
// weight arena, on the host or on a device. Takes exactly the ledger's weight buffers, in the
// ledger's order.
#pragma once

#include <cstdint>
#include <functional>

#include "kernels/core/arena.h"
#include "kernels/cpu/ops.h"
#include "parallel/plan.h"
#include "runtime/io/gguf.h"
#include "runtime/model/weights.h"

namespace spillway {

// How file tensors get into the arena's memory: cpu_writer for host memory, stage/gpu_upload.h for
// a device's.
struct WeightWriter {
  // cpu::pack, wherever out.data lies.
  std::function<void(const cpu::GgufMatrix&, Range rows, Range cols, const PackedMatrix& out)> pack;
  // cpu::dequantize of out.size() values; out may be device memory, so it is the writer's to fill.
  std::function<void(QuantType, const std::byte* data, std::span<float> out)> floats;
};
WeightWriter cpu_writer(const cpu::Exec& exec);

// on_progress(done, total) in bytes of the arena, after every layer; may be empty.
Weights load_weights(const Gguf& gguf, const ModelSpec& model, const Plan& plan, int rank,
                     const WeightWriter& writer, Arena& arena,
                     const std::function<void(int64_t, int64_t)>& on_progress);

}  // namespace spillway

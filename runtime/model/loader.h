// Loader: this rank's ranges of every tensor, read from the mapped file once and packed into its
// weight arenas: on the device that computes, in the spill memory on the host, in the spill file.
// Takes exactly the ledger's weight buffers, in the ledger's order.
#pragma once

#include <cstdint>
#include <functional>

#include "kernels/core/arena.h"
#include "kernels/cpu/ops.h"
#include "parallel/ledger.h"
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

// Where one home's weights go: all of its arena is filled, in the ledger's order. nullptr: the plan
// places nothing of this rank there. Matrices of the host and disk homes are the caller's to move
// after that: their views point into these arenas.
struct WeightTarget {
  const WeightWriter* writer = nullptr;
  Arena* arena = nullptr;
};
struct WeightTargets {
  WeightTarget device;
  WeightTarget host;  // filled with cpu_writer
  WeightTarget disk;  // likewise
  const WeightTarget& of(WeightHome home) const {
    return home == WeightHome::kDevice ? device : home == WeightHome::kHost ? host : disk;
  }
};

// on_progress(done, total) in bytes of the arenas, after every layer; may be empty.
Weights load_weights(const Gguf& gguf, const ModelSpec& model, const Plan& plan, int rank,
                     const WeightTargets& targets,
                     const std::function<void(int64_t, int64_t)>& on_progress);

}  // namespace spillway

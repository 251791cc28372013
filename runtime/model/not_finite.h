// Where a model's weights are no numbers: asked when a step has computed NaN, so that the message
// names a tensor and not only a symptom. Called by launch's Job.
// Thread: any; reads the mapping.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "runtime/io/gguf.h"

namespace spillway {

struct NotFiniteWeight {
  std::string tensor;
  int64_t row = 0;
  float value = 0;  // NaN or an infinity
  std::string path;
  int64_t offset = 0;  // of the row, in the file
};

// The first such weight in the order of the file; nothing when all are finite, or when reading took
// longer than `patience` (about 1 GB/s). Tensors of types that are not computed are passed over.
std::optional<NotFiniteWeight> find_not_finite(const Gguf& gguf,
                                               std::chrono::milliseconds patience);

}  // namespace spillway

// A model file in another type: plan_quantize says what every tensor becomes, quantize_file writes
// it. Called by launch/verb_quantize.cc; never holds more than a slice of one tensor.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels/cpu/ops.h"
#include "runtime/io/gguf.h"
#include "runtime/io/gguf_writer.h"
#include "runtime/model/quant_mix.h"

namespace spillway {

struct QuantizePlan {
  GgufMetadataText metadata;
  std::vector<GgufTensorPlan> tensors;  // as the source's, with their new types
  int64_t alignment = 32;
  int64_t file_bytes = 0;    // of the new file
  int64_t tensor_bytes = 0;  // of its tensors
  int64_t source_bytes = 0;  // of the source's tensors
  int64_t elements = 0;
  std::vector<std::string> quantised_twice;  // tensors whose source has lost quality already
};

// Metadata is copied but for general.file_type, general.quantization_version and split.*: parts
// become one file. Throws Error for a tensor whose type has no dequantiser here.
QuantizePlan plan_quantize(const Gguf& source, const QuantMix& mix, const QuantMixOptions& options);

// Throws Error when `path` or its temporary is one of the source's files, when `path` is there
// already (unless `replace`) or is not a regular file, or when its file system has less room than
// the plan needs.
void check_target(const Gguf& source, const QuantizePlan& plan, const std::string& path,
                  bool replace);

// Writes the plan's file under `path`, which appears complete or not at all. A value that is not
// finite or too large for its type is an Error naming tensor and position. step(done, total) is
// called after every slice with bytes of the source; what it throws ends the run.
void quantize_file(const cpu::Exec& exec, const Gguf& source, const QuantizePlan& plan,
                   const std::string& path, bool replace,
                   const std::function<void(int64_t, int64_t)>& step);

}  // namespace spillway

// See not_finite.h.
#include "runtime/model/not_finite.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cpu/ops.h"

namespace spillway {

std::optional<NotFiniteWeight> find_not_finite(const Gguf& gguf,
                                               std::chrono::milliseconds patience) {
  const auto end = std::chrono::steady_clock::now() + patience;
  std::vector<float> values;
  for (const GgufTensor& tensor : gguf.tensors()) {
    if (!quant_info(tensor.type).computable) continue;
    const int64_t row_bytes = tensor.bytes / tensor.rows();
    values.resize(static_cast<size_t>(tensor.cols()));
    for (int64_t row = 0; row < tensor.rows(); ++row) {
      cpu::dequantize(tensor.type, tensor.data + row * row_bytes, values);
      const auto found = std::find_if(values.begin(), values.end(),
                                      [](float value) { return !std::isfinite(value); });
      if (found != values.end()) {
        return NotFiniteWeight{tensor.name, row, *found,
                               gguf.paths()[static_cast<size_t>(tensor.file)],
                               tensor.offset + row * row_bytes};
      }
      if (std::chrono::steady_clock::now() > end) return std::nullopt;
    }
  }
  return std::nullopt;
}

}  // namespace spillway

// Dequantisation of GGUF blocks, one value at a time: for norms and biases, and the reference that
// everything else is tested against. Formulas: the block structs in kernels/core/quant.h.
// Never called in a step.
#include <cstring>

#include "kernels/core/dispatch.h"
#include "kernels/core/half.h"
#include "kernels/cpu/block_parts.h"
#include "kernels/cpu/ops.h"

namespace spillway::cpu {
namespace {

template <QuantType Q>
float plain_value(const std::byte* data) {
  if constexpr (Q == QuantType::kF32) {
    float value;
    std::memcpy(&value, data, sizeof(value));
    return value;
  } else {
    uint16_t half;
    std::memcpy(&half, data, sizeof(half));
    return Q == QuantType::kF16 ? f16_to_f32(half) : bf16_to_f32(half);
  }
}

}  // namespace

void dequantize(QuantType type, const std::byte* data, std::span<float> out) {
  dispatch(type, [&](auto tag) {
    using Traits = typename decltype(tag)::Traits;
    const auto n = static_cast<int64_t>(out.size());
    CHECK_EQ(n % Traits::kBlock, 0);
    if constexpr (Traits::kBits == 0) {
      for (int64_t i = 0; i < n; ++i) {
        out[static_cast<size_t>(i)] =
            plain_value<decltype(tag)::kType>(data + i * Traits::kElementBytes);
      }
    } else {
      BlockParts parts{};
      for (int64_t b = 0; b < n / Traits::kBlock; ++b) {
        typename Traits::Block block;
        std::memcpy(&block, data + b * static_cast<int64_t>(sizeof(block)), sizeof(block));
        take_apart(block, parts);
        block_values<Traits>(parts, out.data() + b * Traits::kBlock);
      }
    }
  });
}

}  // namespace spillway::cpu

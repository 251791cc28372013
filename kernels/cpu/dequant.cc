// Dequantisation of GGUF blocks, one value at a time: for norms and biases, and the reference that
// everything else is tested against. Formulas: the block structs in kernels/core/quant.h.
// Never called in a step.
#include <cstring>

#include "kernels/core/dispatch.h"
#include "kernels/core/half.h"
#include "kernels/cpu/ops.h"

namespace spillway::cpu {
namespace {

void to_floats(const BlockQ4_0& block, float* out) {
  const float d = f16_to_f32(block.d);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>((block.qs[i] & 15) - 8);
    out[i + 16] = d * static_cast<float>((block.qs[i] >> 4) - 8);
  }
}

void to_floats(const BlockQ4_1& block, float* out) {
  const float d = f16_to_f32(block.d);
  const float m = f16_to_f32(block.m);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(block.qs[i] & 15) + m;
    out[i + 16] = d * static_cast<float>(block.qs[i] >> 4) + m;
  }
}

uint32_t fifth_bits(const uint8_t (&qh)[4]) {
  return qh[0] | static_cast<uint32_t>(qh[1]) << 8 | static_cast<uint32_t>(qh[2]) << 16 |
         static_cast<uint32_t>(qh[3]) << 24;
}

// Codes of a 5-bit block, 0 to 31.
template <typename Block>
int code5(const Block& block, uint32_t bits, int i) {
  const int nibble = i < 16 ? block.qs[i] & 15 : block.qs[i - 16] >> 4;
  return nibble | static_cast<int>((bits >> i) & 1u) << 4;
}

void to_floats(const BlockQ5_0& block, float* out) {
  const float d = f16_to_f32(block.d);
  const uint32_t bits = fifth_bits(block.qh);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(code5(block, bits, i) - 16);
}

void to_floats(const BlockQ5_1& block, float* out) {
  const float d = f16_to_f32(block.d);
  const float m = f16_to_f32(block.m);
  const uint32_t bits = fifth_bits(block.qh);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(code5(block, bits, i)) + m;
}

void to_floats(const BlockQ8_0& block, float* out) {
  const float d = f16_to_f32(block.d);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(block.qs[i]);
}

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
      for (int64_t b = 0; b < n / Traits::kBlock; ++b) {
        typename Traits::Block block;
        std::memcpy(&block, data + b * static_cast<int64_t>(sizeof(block)), sizeof(block));
        to_floats(block, out.data() + b * Traits::kBlock);
      }
    }
  });
}

}  // namespace spillway::cpu

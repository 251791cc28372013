// See quantize.h. This file: the choice of type, the work by threads, and the types whose blocks
// need no search. quantize_k.cc: those that do.
#include "kernels/cpu/quantize.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/core/half.h"
#include "kernels/cpu/block_assemble.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/quantize_k.h"

namespace spillway::cpu {
namespace {

constexpr float kLargestHalf = 65504.0f;

// The f16 of a scale; one that is too large for it is cut, so that no block holds an infinity.
uint16_t half_of(float scale) { return f32_to_f16(std::clamp(scale, -kLargestHalf, kLargestHalf)); }

// 1 / scale, 0 for scale 0 and for one so small (below 2^-128) that there is no such float.
float inverse_of(float scale) {
  const float inverse = 1.0f / scale;
  return scale != 0 && std::isfinite(inverse) ? inverse : 0.0f;
}

// The value of greatest magnitude, the first of several.
float extreme(const float* x) {
  float found = x[0];
  for (int i = 1; i < 32; ++i) {
    if (std::fabs(x[i]) > std::fabs(found)) found = x[i];
  }
  return found;
}

// Q4_0 and Q5_0: the extreme value becomes code 0, the codes' middle stands for 0.
template <typename Block, int kMiddle>
void around_middle(const float* x, Block& out) {
  BlockParts parts;
  const float d =
      std::clamp(extreme(x) / static_cast<float>(-kMiddle), -kLargestHalf, kLargestHalf);
  const float inverse = inverse_of(d);
  for (int i = 0; i < 32; ++i) {
    const float code = x[i] * inverse + (static_cast<float>(kMiddle) + 0.5f);
    parts.codes[i] =
        static_cast<uint8_t>(std::clamp(code, 0.0f, static_cast<float>(2 * kMiddle - 1)));
  }
  parts.d = f32_to_f16(d);
  put_together(parts, out);
}

// Q4_1 and Q5_1: codes from the least value to the greatest.
template <typename Block, int kTop>
void above_minimum(const float* x, Block& out) {
  BlockParts parts;
  const auto [least, greatest] = std::minmax_element(x, x + 32);
  const float minimum = std::clamp(*least, -kLargestHalf, kLargestHalf);
  const float d = std::min((*greatest - minimum) / static_cast<float>(kTop), kLargestHalf);
  const float inverse = inverse_of(d);
  for (int i = 0; i < 32; ++i) {
    const float code = (x[i] - minimum) * inverse + 0.5f;
    parts.codes[i] = static_cast<uint8_t>(std::clamp(code, 0.0f, static_cast<float>(kTop)));
  }
  parts.d = half_of(d);
  parts.m = f32_to_f16(minimum);
  put_together(parts, out);
}

void to_block(const float* x, BlockQ4_0& out) { around_middle<BlockQ4_0, 8>(x, out); }
void to_block(const float* x, BlockQ5_0& out) { around_middle<BlockQ5_0, 16>(x, out); }
void to_block(const float* x, BlockQ4_1& out) { above_minimum<BlockQ4_1, 15>(x, out); }
void to_block(const float* x, BlockQ5_1& out) { above_minimum<BlockQ5_1, 31>(x, out); }

void to_block(const float* x, BlockQ8_0& out) {
  const float d = std::min(std::fabs(extreme(x)) / 127.0f, kLargestHalf);
  const float inverse = inverse_of(d);
  for (int i = 0; i < 32; ++i) {
    const float code = std::round(x[i] * inverse);  // halves away from zero
    out.qs[i] = static_cast<int8_t>(std::clamp(code, -127.0f, 127.0f));
  }
  out.d = f32_to_f16(d);
}

// OCP Microscaling 1.0, section 6.3: the shared exponent is that of the greatest magnitude less
// the element's greatest exponent (2). Each value takes the nearest code, the first of two.
void to_block(const float* x, BlockMXFP4& out) {
  BlockParts parts;
  const float greatest = std::fabs(extreme(x));
  const int exponent = greatest > 0 ? std::ilogb(greatest) - 2 + 127 : 0;
  parts.sub[0] = static_cast<uint8_t>(std::clamp(exponent, 0, 254));
  const float scale = half_power_of_two(parts.sub[0]);
  for (int i = 0; i < 32; ++i) {
    int best = 0;
    float best_error = std::numeric_limits<float>::infinity();
    for (int code = 0; code < 16; ++code) {
      const float error = std::fabs(scale * static_cast<float>(kFp4Values[code]) - x[i]);
      if (error < best_error) best = code;
      best_error = std::min(best_error, error);
    }
    parts.codes[i] = static_cast<uint8_t>(best);
  }
  put_together(parts, out);
}

template <typename Block>
void to_blocks(const float* x, int64_t n_blocks, std::byte* out) {
  for (int64_t b = 0; b < n_blocks; ++b) {
    Block block;
    to_block(x + 32 * b, block);
    std::memcpy(out + b * static_cast<int64_t>(sizeof(block)), &block, sizeof(block));
  }
}

// Round to nearest, ties to even; a carry may end in infinity, which F32 values of the last half
// step below 2^128 do in any BF16.
uint16_t f32_to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

void to_halves(const float* x, int64_t n, std::byte* out) {
  for (int64_t i = 0; i < n; ++i) {
    const uint16_t half = half_of(x[i]);
    std::memcpy(out + 2 * i, &half, 2);
  }
}
void to_brain_floats(const float* x, int64_t n, std::byte* out) {
  for (int64_t i = 0; i < n; ++i) {
    const uint16_t brain = f32_to_bf16(x[i]);
    std::memcpy(out + 2 * i, &brain, 2);
  }
}

// `n` values, a multiple of the type's block, on this thread.
void quantize_part(Isa isa, QuantType type, const float* x, int64_t n, std::byte* out) {
  switch (type) {
    case QuantType::kF32:
      std::memcpy(out, x, static_cast<size_t>(4 * n));
      return;
    case QuantType::kF16:
      return to_halves(x, n, out);
    case QuantType::kBF16:
      return to_brain_floats(x, n, out);
    case QuantType::kQ4_0:
      return to_blocks<BlockQ4_0>(x, n / 32, out);
    case QuantType::kQ4_1:
      return to_blocks<BlockQ4_1>(x, n / 32, out);
    case QuantType::kQ5_0:
      return to_blocks<BlockQ5_0>(x, n / 32, out);
    case QuantType::kQ5_1:
      return to_blocks<BlockQ5_1>(x, n / 32, out);
    case QuantType::kQ8_0:
      return to_blocks<BlockQ8_0>(x, n / 32, out);
    case QuantType::kMXFP4:
      return to_blocks<BlockMXFP4>(x, n / 32, out);
    default:
      return quantize_searched(isa, type, x, n, out);
  }
}

// Values that one thread takes at a time: whole blocks of every type, and whole batches of the
// searches, so that the cut between threads changes no bits.
constexpr int64_t kGrain = 512;

}  // namespace

bool can_quantize(QuantType type) {
  switch (type) {
    case QuantType::kF32:
    case QuantType::kF16:
    case QuantType::kBF16:
    case QuantType::kQ4_0:
    case QuantType::kQ4_1:
    case QuantType::kQ5_0:
    case QuantType::kQ5_1:
    case QuantType::kQ8_0:
    case QuantType::kMXFP4:
      return true;
    default:
      return is_searched(type);
  }
}

float largest_value(QuantType type) {
  switch (type) {
    case QuantType::kF16:
      return kLargestHalf;
    case QuantType::kQ4_0:
      return 7 * kLargestHalf;
    case QuantType::kQ5_0:
      return 15 * kLargestHalf;
    case QuantType::kQ4_1:
    case QuantType::kQ5_1:
      return kLargestHalf;  // what its minimum can be
    case QuantType::kQ8_0:
      return 127 * kLargestHalf;
    case QuantType::kMXFP4:
      return 0x1.8p+127f;
    case QuantType::kF32:
    case QuantType::kBF16:
      return std::numeric_limits<float>::infinity();
    default:
      return largest_searched_value(type);
  }
}

void quantize(const Exec& exec, QuantType type, std::span<const float> x, std::byte* out) {
  const auto n = static_cast<int64_t>(x.size());
  const QuantInfo& info = quant_info(type);
  CHECK(can_quantize(type));
  CHECK_EQ(n % info.block_elements, 0);
  const int64_t grains = div_up(n, kGrain);
  parallel_for(exec, grains, 32 * n, [&](Range part) {
    const int64_t begin = part.begin * kGrain;
    const int64_t end = std::min(n, part.end * kGrain);
    std::byte* where = out + begin / info.block_elements * info.block_bytes;
    quantize_part(exec.isa, type, x.data() + begin, end - begin, where);
  });
}

int64_t first_unfit(const Exec& exec, std::span<const float> x, float largest) {
  const auto n = static_cast<int64_t>(x.size());
  std::atomic<int64_t> first{n};
  parallel_for(exec, div_up(n, kGrain), n, [&](Range part) {
    for (int64_t grain = part.begin; grain < part.end; ++grain) {
      const int64_t begin = grain * kGrain;
      const int64_t end = std::min(n, begin + kGrain);
      bool fit = true;
      for (int64_t i = begin; i < end; ++i) {
        const float magnitude = std::fabs(x[static_cast<size_t>(i)]);
        fit = fit && magnitude <= largest && magnitude < std::numeric_limits<float>::infinity();
      }
      if (fit) continue;
      for (int64_t i = begin; i < end; ++i) {
        const float magnitude = std::fabs(x[static_cast<size_t>(i)]);
        if (magnitude <= largest && magnitude < std::numeric_limits<float>::infinity()) continue;
        int64_t seen = first.load();
        while (i < seen && !first.compare_exchange_weak(seen, i)) {
        }
        return;
      }
    }
  });
  return first.load() == n ? -1 : first.load();
}

}  // namespace spillway::cpu

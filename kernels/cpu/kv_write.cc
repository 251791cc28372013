// kv_write: rows of K and V to their places in the pages. Reads 8 bytes a value, writes 4 (f16) or
// 8. Halves are rounded to nearest, ties to even; values beyond 65504 become infinity, which a
// model whose keys reach it shows as NaN rather than as a quietly wrong answer. Blocks: kv_view.h;
// in plain C++, so that every processor writes the same codes.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/core/half.h"
#include "kernels/core/int_math.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/parallel.h"

namespace spillway::cpu {
namespace {

// Codes of one block; their scale as bits of a half.
uint16_t write_block(const float* x, KvType type, uint8_t* codes) {
  uint32_t max_bits = 0;
  float least = x[0];
  float greatest = x[0];
  for (int64_t i = 0; i < kKvBlock; ++i) {
    max_bits = std::max(max_bits, std::bit_cast<uint32_t>(x[i]) & 0x7fffffffu);
    least = std::min(least, x[i]);
    greatest = std::max(greatest, x[i]);
  }
  uint16_t half = 0x7e00;  // NaN, for what is not finite
  if (max_bits == 0) {
    half = 0;
  } else if (max_bits < 0x7f800000u && type == KvType::kQ8_0) {
    half = f32_to_f16(std::bit_cast<float>(max_bits) / 127.0f);
  } else if (max_bits < 0x7f800000u) {
    half = f32_to_f16((-least > greatest ? least : greatest) / -8.0f);
  }
  const bool usable = (half & 0x7fffu) != 0 && (half & 0x7fffu) < 0x7c00u;
  const float inverse = usable ? 1.0f / f16_to_f32(half) : 0.0f;
  int code[kKvBlock];
  for (int64_t i = 0; i < kKvBlock; ++i) {
    code[i] = usable ? static_cast<int>(std::nearbyint(x[i] * inverse)) : 0;
  }
  if (type == KvType::kQ8_0) {
    for (int64_t i = 0; i < kKvBlock; ++i) {
      codes[i] = static_cast<uint8_t>(std::clamp(code[i], -127, 127));
    }
    return half;
  }
  for (int64_t i = 0; i < kKvBlock / 2; ++i) {
    const int low = std::clamp(code[i] + 8, 0, 15);
    const int high = std::clamp(code[i + kKvBlock / 2] + 8, 0, 15);
    codes[i] = static_cast<uint8_t>(low + 16 * high);
  }
  return half;
}

// One token of a page's head: its codes, and its scales behind the codes of all tokens.
void write_blocks(const float* head, const KvView& cache, int64_t offset, std::byte* page) {
  const int64_t code_bytes = kv_code_bytes(cache.type, cache.head_dim);
  const int64_t blocks = cache.head_dim / kKvBlock;
  auto* codes = reinterpret_cast<uint8_t*>(page + offset * code_bytes);
  std::byte* scales = page + cache.page_tokens * code_bytes + offset * blocks * 2;
  for (int64_t b = 0; b < blocks; ++b) {
    const uint16_t half =
        write_block(head + b * kKvBlock, cache.type, codes + b * (code_bytes / blocks));
    std::memcpy(scales + 2 * b, &half, 2);
  }
}

void write_row(const KernelTable& kernels, const float* from, const KvView& cache, int64_t slot,
               std::byte* pages) {
  const int64_t page = slot / cache.page_tokens;
  const int64_t offset = slot % cache.page_tokens;
  for (int64_t h = 0; h < cache.n_kv_heads; ++h) {
    const int64_t row_bytes = kv_row_bytes(cache.type, cache.head_dim);
    std::byte* start = pages + (page * cache.n_kv_heads + h) * cache.page_tokens * row_bytes;
    std::byte* to = start + offset * row_bytes;
    const float* head = from + h * cache.head_dim;
    if (kv_quantized(cache.type)) {
      write_blocks(head, cache, offset, start);
    } else if (cache.type == KvType::kF16) {
      kernels.to_f16_row(head, cache.head_dim, reinterpret_cast<uint16_t*>(to));
    } else {
      std::memcpy(to, head, static_cast<size_t>(cache.head_dim) * sizeof(float));
    }
  }
}

}  // namespace

void kv_write(const Exec& exec, View2D<const float> k, View2D<const float> v,
              std::span<const int64_t> slots, const KvView& cache) {
  const auto n = static_cast<int64_t>(slots.size());
  CHECK_EQ(k.rows, n);
  CHECK_EQ(v.rows, n);
  CHECK_EQ(k.cols, cache.n_kv_heads * cache.head_dim);
  CHECK_EQ(v.cols, k.cols);
  CHECK(kv_type_fits(cache.type, cache.head_dim));
  const KernelTable& kernels = kernel_table(exec.isa);
  parallel_for(exec, n, n * k.cols, [&](Range rows) {
    for (int64_t r = rows.begin; r < rows.end; ++r) {
      const int64_t slot = slots[static_cast<size_t>(r)];
      CHECK(slot >= 0 && slot < cache.n_pages * cache.page_tokens);
      write_row(kernels, k.row(r).data(), cache, slot, cache.k);
      write_row(kernels, v.row(r).data(), cache, slot, cache.v);
    }
  });
}

}  // namespace spillway::cpu

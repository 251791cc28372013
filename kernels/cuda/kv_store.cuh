// Values on their way into the pages of the KV cache: for kv_write, rope_kv_write and
// attend_decode.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "kernels/core/check.h"
#include "kernels/core/kv_view.h"

namespace spillway::cuda {

struct KvPages {
  std::byte* k;
  std::byte* v;
  KvType type;
  int n_kv_heads;
  int page_tokens;
  int head_dim;
};

inline KvPages kv_pages(const KvView& cache) {
  CHECK(kv_type_fits(cache.type, cache.head_dim));
  return {cache.k,
          cache.v,
          cache.type,
          static_cast<int>(cache.n_kv_heads),
          static_cast<int>(cache.page_tokens),
          static_cast<int>(cache.head_dim)};
}

// Where a token lies. page -1: nowhere, a row of nobody's that fills a graph's bucket up.
struct KvPlace {
  int64_t page;
  int64_t offset;
};
__device__ __forceinline__ KvPlace kv_place(const KvPages& cache, int64_t slot) {
  if (slot < 0) return {-1, 0};
  const int64_t page = slot / cache.page_tokens;
  return {page, slot - page * cache.page_tokens};
}

// Halves are rounded to nearest, ties to even, as the CPU's kv_write does.
__device__ __forceinline__ void store_value(const KvPages& cache, std::byte* plane, KvPlace place,
                                            int head, int dim, float value) {
  if (place.page < 0) return;
  const int64_t row = (place.page * cache.n_kv_heads + head) * cache.page_tokens + place.offset;
  const int64_t at = row * cache.head_dim + dim;
  if (cache.type == KvType::kF16) {
    reinterpret_cast<__half*>(plane)[at] = __float2half_rn(value);
  } else {
    reinterpret_cast<float*>(plane)[at] = value;
  }
}

// The scale of a block of 32 values, of which every lane of the warp has one, as bits of a half.
__device__ __forceinline__ unsigned short kv_block_scale(KvType type, float value) {
  constexpr unsigned kWarp = 0xffffffffu;
  const unsigned max_bits = __reduce_max_sync(kWarp, __float_as_uint(value) & 0x7fffffffu);
  float least = value;
  float greatest = value;
  for (int distance = 16; distance > 0; distance /= 2) {
    least = fminf(least, __shfl_xor_sync(kWarp, least, distance));
    greatest = fmaxf(greatest, __shfl_xor_sync(kWarp, greatest, distance));
  }
  if (max_bits == 0) return 0;
  if (max_bits >= 0x7f800000u) return 0x7e00;
  const float scale = type == KvType::kQ8_0
                          ? __fdiv_rn(__uint_as_float(max_bits), 127.0f)
                          : __fdiv_rn(-least > greatest ? least : greatest, -8.0f);
  return __half_as_ushort(__float2half_rn(scale));
}

// The same value's code and place, by a warp that has a block: head and dim / 32 are the warp's.
// Codes are those of the CPU's kv_write.
__device__ __forceinline__ void store_code(const KvPages& cache, std::byte* plane, KvPlace place,
                                           int head, int dim, float value) {
  if (place.page < 0) return;  // the whole warp
  const unsigned short half = kv_block_scale(cache.type, value);
  const bool usable = (half & 0x7fffu) != 0 && (half & 0x7fffu) < 0x7c00u;
  const float inverse = usable ? __frcp_rn(__half2float(__ushort_as_half(half))) : 0.0f;
  int code = usable ? __float2int_rn(__fmul_rn(value, inverse)) : 0;
  const bool bytes = cache.type == KvType::kQ8_0;
  code = bytes ? min(max(code, -127), 127) : min(max(code + 8, 0), 15);
  const int high = __shfl_down_sync(0xffffffffu, code, 16);

  const int blocks = cache.head_dim / 32;
  const int code_bytes = bytes ? cache.head_dim : cache.head_dim / 2;
  std::byte* start = plane + (place.page * cache.n_kv_heads + head) * cache.page_tokens *
                                 (code_bytes + 2 * blocks);
  std::byte* codes = start + place.offset * code_bytes + dim / 32 * (bytes ? 32 : 16);
  const int i = dim % 32;
  if (bytes) {
    codes[i] = static_cast<std::byte>(code);
  } else if (i < 16) {
    codes[i] = static_cast<std::byte>(code + 16 * high);
  }
  if (i == 0) {
    auto* scales = reinterpret_cast<unsigned short*>(start + cache.page_tokens * code_bytes);
    scales[place.offset * blocks + dim / 32] = half;
  }
}

}  // namespace spillway::cuda

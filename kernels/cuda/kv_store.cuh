// Values on their way into the pages of the KV cache: for kv_write and rope_kv_write.
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
  CHECK(cache.type == KvType::kF16 || cache.type == KvType::kF32);
  return {cache.k,
          cache.v,
          cache.type,
          static_cast<int>(cache.n_kv_heads),
          static_cast<int>(cache.page_tokens),
          static_cast<int>(cache.head_dim)};
}

// Halves are rounded to nearest, ties to even, as the CPU's kv_write does.
__device__ __forceinline__ void store_value(const KvPages& cache, std::byte* plane, int64_t slot,
                                            int head, int dim, float value) {
  if (slot < 0) return;  // a row of nobody's: padding of a graph's bucket
  const int64_t page = slot / cache.page_tokens;
  const int64_t offset = slot - page * cache.page_tokens;
  const int64_t row = (page * cache.n_kv_heads + head) * cache.page_tokens + offset;
  const int64_t at = row * cache.head_dim + dim;
  if (cache.type == KvType::kF16) {
    reinterpret_cast<__half*>(plane)[at] = __float2half_rn(value);
  } else {
    reinterpret_cast<float*>(plane)[at] = value;
  }
}

}  // namespace spillway::cuda

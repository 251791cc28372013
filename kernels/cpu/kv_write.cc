// kv_write: rows of K and V to their places in the pages. Reads 8 bytes a value, writes 4 (f16) or
// 8. Halves are rounded to nearest, ties to even; values beyond 65504 become infinity, which a
// model whose keys reach it shows as NaN rather than as a quietly wrong answer.
#include <cstring>

#include "kernels/core/int_math.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/parallel.h"

namespace spillway::cpu {
namespace {

void write_row(const KernelTable& kernels, const float* from, const KvView& cache, int64_t slot,
               std::byte* pages) {
  const int64_t page = slot / cache.page_tokens;
  const int64_t offset = slot % cache.page_tokens;
  for (int64_t h = 0; h < cache.n_kv_heads; ++h) {
    const int64_t token = (page * cache.n_kv_heads + h) * cache.page_tokens + offset;
    std::byte* to = pages + token * cache.head_dim * kv_element_bytes(cache.type);
    const float* head = from + h * cache.head_dim;
    if (cache.type == KvType::kF16) {
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

// One layer's KV cache as the attention ops see it: pages of tokens, and for every sequence in the
// step the list of its pages. Pages are numbered over the whole cache; a sequence's page i holds
// its positions [i*page_tokens, (i+1)*page_tokens).
#pragma once

#include <cstddef>
#include <cstdint>

namespace spillway {

enum class KvType : uint32_t { kF16 = 0, kF32 = 1 };

inline constexpr int64_t kv_element_bytes(KvType type) { return type == KvType::kF16 ? 2 : 4; }

// k and v: [n_pages, n_kv_heads, page_tokens, head_dim], elements of `type`.
struct KvView {
  std::byte* k = nullptr;
  std::byte* v = nullptr;
  KvType type = KvType::kF16;
  int64_t n_pages = 0;
  int64_t n_kv_heads = 0;  // on this rank
  int64_t page_tokens = 0;
  int64_t head_dim = 0;
};

// Rows [first_row, first_row+n_rows) of the step belong to one sequence and are its positions
// first_position, first_position+1, ...; each attends to itself and all positions before.
struct AttendSequence {
  int64_t first_row = 0;
  int64_t n_rows = 0;
  int64_t first_position = 0;
  const int32_t* pages = nullptr;  // enough for first_position + n_rows tokens
};

// Which KV head a query head reads: local query head h is global head first_head + h; it reads
// local KV head (first_head + h) / group - first_kv_head.
struct HeadMap {
  int64_t n_heads = 0;  // query heads on this rank
  int64_t first_head = 0;
  int64_t group = 1;  // query heads per KV head in the model
  int64_t first_kv_head = 0;
};

}  // namespace spillway

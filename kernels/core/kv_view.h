// One layer's KV cache as the attention ops see it: pages of tokens, and for every sequence in the
// step the list of its pages. Pages are numbered over the whole cache; a sequence's page i holds
// its positions [i*page_tokens, (i+1)*page_tokens).
#pragma once

#include <cstddef>
#include <cstdint>

namespace spillway {

// kQ8_0 and kQ4_0: blocks of 32 values along head_dim with one half as their scale, which is
// rounded before the codes are made from it.
//   Q8_0: scale = max|x| / 127, a code is a signed byte
//   Q4_0: scale = (the value of greatest magnitude) / -8, a code is 4 bits and means code - 8; byte
//         i of a block's 16 holds value i in its low half and value i + 16 in its high half
// A block with a NaN or an infinity has the scale NaN.
enum class KvType : uint32_t { kF16 = 0, kF32 = 1, kQ8_0 = 2, kQ4_0 = 3 };
inline constexpr uint32_t kKvTypes = 4;
inline constexpr int64_t kKvBlock = 32;

inline constexpr bool kv_quantized(KvType type) {
  return type == KvType::kQ8_0 || type == KvType::kQ4_0;
}
// Blocks do not cross heads.
inline constexpr bool kv_type_fits(KvType type, int64_t head_dim) {
  return !kv_quantized(type) || head_dim % kKvBlock == 0;
}
// One token of one head, of K or of V: without scales, and with them.
inline constexpr int64_t kv_code_bytes(KvType type, int64_t head_dim) {
  if (type == KvType::kF32) return 4 * head_dim;
  if (type == KvType::kF16) return 2 * head_dim;
  return type == KvType::kQ8_0 ? head_dim : head_dim / 2;
}
inline constexpr int64_t kv_row_bytes(KvType type, int64_t head_dim) {
  return kv_code_bytes(type, head_dim) + (kv_quantized(type) ? head_dim / kKvBlock * 2 : 0);
}
inline constexpr const char* kv_type_name(KvType type) {
  constexpr const char* kNames[kKvTypes] = {"f16", "f32", "q8_0", "q4_0"};
  return kNames[static_cast<uint32_t>(type)];
}

// k and v: [n_pages, n_kv_heads, page_tokens, head_dim], elements of `type`; of a quantised type
// every [page_tokens, head_dim] is the codes of all its tokens and then the scales
// [page_tokens, head_dim / 32], so that rows of codes are read in wide pieces.
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

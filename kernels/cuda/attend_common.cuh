// What the attention kernels share: a step as they get it, and a row's values in the forms that
// products read. See attend.cu for how the parts fit together.
#pragma once

#include <cuda_bf16.h>

#include "kernels/cuda/kv_store.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/rope_turn.cuh"

namespace spillway::cuda {

// Where a row's values go: those that are set. cols is a multiple of 32 when q8 is.
struct AttendOut {
  float* x = nullptr;
  int8_t* q8 = nullptr;
  ActivationBlock* blocks = nullptr;
  uint16_t* bf16 = nullptr;
  int padded = 0;  // rows that q8 and blocks are laid out for
  int cols = 0;
};

// What attend_decode does on its way: rotates q, and puts each row's k, rotated, and v into the
// cache. Of attend nothing is set.
struct AppendRows {
  bool wanted = false;
  Rotation rotation{};
  const float* k = nullptr;
  const float* v = nullptr;
  int64_t k_stride = 0;
  int64_t v_stride = 0;
  const int64_t* slots = nullptr;
  KvPages cache{};
};

struct AttendParams {
  const float* q = nullptr;
  int64_t q_stride = 0;
  const SequenceRows* sequences = nullptr;
  const int32_t* pages = nullptr;
  int n_sequences = 0;
  const std::byte* k = nullptr;
  const std::byte* v = nullptr;
  int n_kv_heads = 0;  // of the cache
  int page_tokens = 0;
  int page_shift = -1;  // page_tokens is 2^page_shift, if it is a power of two
  int head_dim = 0;
  int n_heads = 0;
  int first_head = 0;
  int group = 1;
  int first_group = 0;  // first_head / group
  int first_kv_head = 0;
  float scale_log2 = 1;  // scale * log2(e): weights are powers of two
  int window = 0;
  AttendOut out;
  AppendRows append;
  int slots = 0;                 // wanted over all sequences; one a sequence more are there
  unsigned* counters = nullptr;  // [2][kAttendCounters], zeros between launches
  float2* stats = nullptr;       // maximum and sum of a partial, [slot, n_heads]
  float* partial = nullptr;      // [slot, out.cols], divided by nothing
};

// Local query heads [begin, begin + n) of the block's KV head and chunk of its group.
struct HeadSpan {
  int begin;
  int n;
  int kv;  // in the cache
};

// KV head number `index` of those that the rank's heads read, part `chunk` of `most` heads.
__device__ __forceinline__ HeadSpan heads_of(const AttendParams& a, int index, int chunk,
                                             int most) {
  const int kv = a.first_group + index;
  const int begin = max(kv * a.group, a.first_head) - a.first_head + chunk * most;
  const int end = min((kv + 1) * a.group, a.first_head + a.n_heads) - a.first_head;
  return {begin, min(end - begin, most), kv - a.first_kv_head};
}

// Where a token lies: the first row of its page and KV head, counted over the whole cache, and how
// far behind it.
struct CacheRow {
  int first;
  int offset;
};
__device__ __forceinline__ CacheRow cache_row(const AttendParams& a, const int32_t* pages, int kv,
                                              int token) {
  const int page = a.page_shift >= 0 ? token >> a.page_shift : token / a.page_tokens;
  return {(__ldg(pages + page) * a.n_kv_heads + kv) * a.page_tokens, token - page * a.page_tokens};
}

// 2^x, as the hardware has it: within 2^-22.
__device__ __forceinline__ float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

inline constexpr unsigned kWholeWarp = 0xffffffffu;
inline constexpr float kSmallestMaximum = 0x1p-100f;  // as the CPU's quantize_rows

// Where quad `quad` of a block's 8 quads of codes lies: 0 4 1 5 2 6 3 7.
__device__ __forceinline__ int quad_place(int quad) {
  return quad < 4 ? 2 * quad : 2 * (quad - 4) + 1;
}

struct BlockScale {
  float scale;
  float inverse;  // 0: all codes are 0
};
__device__ __forceinline__ BlockScale block_scale(unsigned max_bits) {
  const float maximum = __uint_as_float(max_bits);
  if (max_bits >= 0x7f800000u) return {__uint_as_float(0x7fc00000u), 0.0f};
  if (maximum < kSmallestMaximum) return {0.0f, 0.0f};
  return {__fdiv_rn(maximum, 127.0f), __fdiv_rn(127.0f, maximum)};
}
__device__ __forceinline__ int block_code(float value, float inverse) {
  return inverse == 0.0f ? 0 : __float2int_rn(__fmul_rn(value, inverse));
}

// A warp writes 32 columns of a row, a lane one; col % 32 is the lane where q8 is set.
__device__ __forceinline__ void put_columns(const AttendOut& out, int64_t row, int col, float value,
                                            bool live) {
  if (live && out.x != nullptr) out.x[row * out.cols + col] = value;
  if (live && out.bf16 != nullptr) {
    out.bf16[row * out.cols + col] = __bfloat16_as_ushort(__float2bfloat16_rn(value));
  }
  if (out.q8 == nullptr) return;
  const int lane = col % 32;
  const BlockScale block =
      block_scale(__reduce_max_sync(kWholeWarp, __float_as_uint(value) & 0x7fffffffu));
  const int code = block_code(value, block.inverse);
  const int low = __reduce_add_sync(kWholeWarp, lane < 16 ? code : 0);
  const int high = __reduce_add_sync(kWholeWarp, lane < 16 ? 0 : code);
  const int64_t at = static_cast<int64_t>(col / 32) * out.padded + row;
  out.q8[at * 32 + quad_place(lane / 4) * 4 + lane % 4] = static_cast<int8_t>(code);
  if (lane == 0) {
    out.blocks[at] = {block.scale, {static_cast<int16_t>(low), static_cast<int16_t>(high)}};
  }
}

// Host: launch what attend() is made of.
void launch_decode(const Exec& exec, const AttendParams& a, KvType type);
void launch_decode_codes(const Exec& exec, const AttendParams& a, KvType type, dim3 grid);
void launch_prefill(const Exec& exec, const AttendParams& a, KvType type, int64_t most_rows);

// Tokens of a tile of the decode kernel: what a warp works on at a time.
inline constexpr int kDecodeTile = 16;
// No split has fewer tiles, one for each warp of a block.
inline constexpr int kLeastTiles = 4;

}  // namespace spillway::cuda

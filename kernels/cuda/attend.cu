// attend and attend_decode: one-row sequences go through attend_decode.cuh, the others through
// attend_prefill.cu; a step with both launches both, and every block finds out on the device
// whether it has work: the grids depend on numbers of the host alone, so that a captured step can
// be replayed at other positions.
//   Splits: slots are dealt over all one-row sequences by tiles of 16 tokens, about three blocks a
//   multiprocessor. Their partial sums are 4 * head_dim bytes a head.
#include <algorithm>
#include <bit>

#include "kernels/core/int_math.h"
#include "kernels/cuda/attend_common.cuh"
#include "kernels/cuda/attend_merge.cuh"

namespace spillway::cuda {
namespace {

constexpr int kBlocksAMultiprocessor = 3;  // of attend_split at head_dim 128, by its registers

// Rows of floats in other forms; a block of 8 warps, a warp 32 columns of a row.
__global__ void __launch_bounds__(256) put_forms(const float* x, int64_t n, AttendOut out) {
  let_next_start();
  wait_for_previous();
  const int64_t warps = out.cols / 32 * n;
  const int64_t warp = static_cast<int64_t>(blockIdx.x) * 8 + threadIdx.x / 32;
  if (warp >= warps) return;
  const int64_t row = warp / (out.cols / 32);
  const auto col =
      static_cast<int>(warp % (out.cols / 32) * 32 + static_cast<int64_t>(threadIdx.x % 32));
  put_columns(out, row, col, x[row * out.cols + col], true);
}

// Slots wanted for the one-row sequences of a step; there is one more for each but the first.
int64_t wanted_slots(const Exec& exec, int64_t n_sequences, int64_t n_kv_heads,
                     int64_t most_context) {
  const int64_t least = int64_t{kDecodeTile} * kLeastTiles;
  // A sliding window may begin inside a tile, which makes one tile more.
  const int64_t most = n_sequences * div_up(most_context + kDecodeTile, least);
  const int64_t full = int64_t{kBlocksAMultiprocessor} * exec.multiprocessors / n_kv_heads;
  return std::max<int64_t>(1, std::min(full, most));
}

constexpr int64_t kAlignment = 256;

// Where things lie in the workspace, in bytes. The counters lie at the same place for every step:
// they are what one launch leaves for the next.
struct Workspace {
  int64_t counters = 0;
  int64_t stats = kAttendCounterBytes;
  int64_t partial = 0;
  int64_t rows = 0;
  int64_t bytes = 0;

  Workspace(int64_t slots, int64_t n_rows, int64_t n_heads, int64_t head_dim) {
    partial = stats + round_up(slots * n_heads * int64_t{sizeof(float2)}, kAlignment);
    rows = partial + round_up(slots * n_heads * head_dim * 4, kAlignment);
    // Blocks of 32 that cross heads are made from whole rows.
    bytes = rows + (head_dim % 32 == 0 ? 0 : round_up(n_rows * n_heads * head_dim * 4, kAlignment));
  }
};

void check_step(View2D<const float> q, const StepRows& step, const HeadMap& heads,
                const KvView& cache, const AttendRule& rule, unsigned forms, const Input& out) {
  CHECK(cache.head_dim > 0 && cache.head_dim % 16 == 0);
  CHECK_LE(cache.head_dim, 256);
  CHECK(cache.page_tokens > 0 && cache.page_tokens % kDecodeTile == 0);
  CHECK_LT(cache.n_pages * cache.n_kv_heads * cache.page_tokens, int64_t{1} << 31);
  CHECK(kv_type_fits(cache.type, cache.head_dim));
  CHECK_GT(heads.group, 0);
  CHECK_GE(rule.window, 0);
  CHECK(reinterpret_cast<uintptr_t>(step.sequences) % 16 == 0);
  CHECK_EQ(q.cols, heads.n_heads * cache.head_dim);
  CHECK_EQ(q.rows, step.n_rows);
  CHECK(q.stride % 4 == 0 && reinterpret_cast<uintptr_t>(q.data) % 16 == 0);
  CHECK_EQ(out.n, q.rows);
  CHECK_EQ(out.cols, q.cols);
  CHECK((forms & kInt8Form) == 0 || out.cols % 32 == 0);
  CHECK((forms & kFloatForm) == 0 || (out.x != nullptr && out.x != q.data));
  CHECK((forms & kInt8Form) == 0 || (out.q8 != nullptr && out.blocks != nullptr));
  CHECK((forms & kBf16Form) == 0 || out.bf16 != nullptr);
  CHECK_GE(heads.first_head / heads.group, heads.first_kv_head);
  CHECK_LT((heads.first_head + heads.n_heads - 1) / heads.group,
           heads.first_kv_head + cache.n_kv_heads);
  CHECK_LE(step.n_sequences, 65535);
  CHECK_LT(step.most_context, int64_t{1} << 30);
}

AttendOut out_forms(const Input& out, unsigned forms) {
  AttendOut made;
  made.x = (forms & kFloatForm) != 0 ? out.x : nullptr;
  made.q8 = (forms & kInt8Form) != 0 ? out.q8 : nullptr;
  made.blocks = (forms & kInt8Form) != 0 ? out.blocks : nullptr;
  made.bf16 = (forms & kBf16Form) != 0 ? out.bf16 : nullptr;
  made.padded = static_cast<int>(padded_rows(out.n));
  made.cols = static_cast<int>(out.cols);
  return made;
}

// Blocks of 32 that cross heads: made from rows of floats by another kernel.
bool crossing(const KvView& cache, unsigned forms) {
  return cache.head_dim % 32 != 0 && (forms & kInt8Form) != 0;
}

AttendParams params_of(const Exec& exec, View2D<const float> q, const StepRows& step,
                       const HeadMap& heads, const KvView& cache, const AttendRule& rule,
                       std::byte* workspace, unsigned forms, const Input& out) {
  check_step(q, step, heads, cache, rule, forms, out);
  // A counter a slot and span of heads: a GPU's blocks leave room for groups of 40 heads.
  const int64_t kv_heads =
      (heads.first_head + heads.n_heads - 1) / heads.group - heads.first_head / heads.group + 1;
  const int64_t most_slots =
      std::max<int64_t>(1, kAttendCounters / (kv_heads * div_up(heads.group, 8)));
  const int64_t slots = std::min(
      most_slots, wanted_slots(exec, step.n_sequences, cache.n_kv_heads, step.most_context));
  const Workspace place(slots + step.n_sequences - 1, step.n_rows, heads.n_heads, cache.head_dim);
  AttendParams a;
  a.q = q.data;
  a.q_stride = q.stride;
  a.sequences = step.sequences;
  a.pages = step.pages;
  a.n_sequences = static_cast<int>(step.n_sequences);
  a.k = cache.k;
  a.v = cache.v;
  a.n_kv_heads = static_cast<int>(cache.n_kv_heads);
  a.page_tokens = static_cast<int>(cache.page_tokens);
  if (std::has_single_bit(static_cast<uint64_t>(cache.page_tokens))) {
    a.page_shift = std::countr_zero(static_cast<uint64_t>(cache.page_tokens));
  }
  a.head_dim = static_cast<int>(cache.head_dim);
  a.n_heads = static_cast<int>(heads.n_heads);
  a.first_head = static_cast<int>(heads.first_head);
  a.group = static_cast<int>(heads.group);
  a.first_group = static_cast<int>(heads.first_head / heads.group);
  a.first_kv_head = static_cast<int>(heads.first_kv_head);
  a.scale_log2 = rule.scale * 1.44269504f;
  a.window = static_cast<int>(std::min<int64_t>(rule.window, int64_t{1} << 30));
  a.out = out_forms(out, crossing(cache, forms) ? 0u : forms);
  if (crossing(cache, forms)) a.out.x = reinterpret_cast<float*>(workspace + place.rows);
  a.slots = static_cast<int>(slots);
  a.counters = reinterpret_cast<unsigned*>(workspace + place.counters);
  a.stats = reinterpret_cast<float2*>(workspace + place.stats);
  a.partial = reinterpret_cast<float*>(workspace + place.partial);
  return a;
}

void put_crossing(const Exec& exec, const AttendParams& a, const KvView& cache, unsigned forms,
                  const Input& out) {
  if (!crossing(cache, forms)) return;
  const auto blocks = static_cast<unsigned>(div_up(out.n * (out.cols / 32), 8));
  launch(exec, put_forms, blocks, 256, 0, a.out.x, out.n, out_forms(out, forms));
}

}  // namespace

void attend(const Exec& exec, View2D<const float> q, const StepRows& step, const HeadMap& heads,
            const KvView& cache, const AttendRule& rule, std::byte* workspace, unsigned forms,
            const Input& out) {
  if (heads.n_heads == 0 || step.n_sequences == 0 || q.rows == 0) return;
  const AttendParams a = params_of(exec, q, step, heads, cache, rule, workspace, forms, out);
  // Steps of most_rows rows for every sequence have none with a single one.
  if (step.most_rows == 1 || step.n_rows != step.most_rows * step.n_sequences) {
    launch_decode(exec, a, cache.type);
  }
  if (step.most_rows > 1) launch_prefill(exec, a, cache.type, step.most_rows);
  put_crossing(exec, a, cache, forms, out);
}

void attend_decode(const Exec& exec, const RopeTable& table, RopePairing pairing,
                   View2D<const float> q, View2D<const float> k, View2D<const float> v,
                   const int64_t* slots, const StepRows& step, const HeadMap& heads,
                   const KvView& cache, const AttendRule& rule, std::byte* workspace,
                   unsigned forms, const Input& out) {
  if (step.n_sequences == 0 || q.rows == 0) return;
  CHECK_GT(heads.n_heads, 0);
  CHECK_EQ(step.most_rows, 1);
  CHECK_EQ(step.n_rows, step.n_sequences);
  CHECK_EQ(k.rows, q.rows);
  CHECK_EQ(v.rows, q.rows);
  CHECK_EQ(k.cols, cache.n_kv_heads * cache.head_dim);
  CHECK_EQ(v.cols, k.cols);
  AttendParams a = params_of(exec, q, step, heads, cache, rule, workspace, forms, out);
  a.append.wanted = true;
  a.append.rotation = rotation_of(table, pairing, cache.head_dim, q.rows);
  a.append.k = k.data;
  a.append.v = v.data;
  a.append.k_stride = k.stride;
  a.append.v_stride = v.stride;
  a.append.slots = slots;
  a.append.cache = kv_pages(cache);
  launch_decode(exec, a, cache.type);
  put_crossing(exec, a, cache, forms, out);
}

int64_t attend_workspace_bytes(const Exec& exec, int64_t max_rows, int64_t max_sequences,
                               int64_t n_heads, int64_t n_kv_heads, int64_t head_dim,
                               int64_t max_context) {
  if (n_heads == 0 || n_kv_heads == 0) return 0;
  int64_t slots = 0;
  for (int64_t n = 1; n <= max_sequences; ++n) {
    slots = std::max(slots, wanted_slots(exec, n, n_kv_heads, max_context) + n - 1);
  }
  return Workspace(slots, max_rows, n_heads, head_dim).bytes;
}

}  // namespace spillway::cuda

// attend: one-row sequences go through attend_decode.cu and the sum over splits here, the others
// through attend_prefill.cu; a step with both launches both, and every block finds out on the
// device whether it has work: the grids depend on numbers of the host alone, so that a captured
// step can be replayed at other positions.
//   Splits: slots are dealt over all one-row sequences by tiles of 16 tokens, about three blocks a
//   multiprocessor. Their partial sums, 4 * head_dim bytes a head, are added slot by slot.
#include <math_constants.h>

#include <algorithm>
#include <bit>

#include "kernels/core/int_math.h"
#include "kernels/cuda/attend_common.cuh"

namespace spillway::cuda {
namespace {

constexpr int kBlocksAMultiprocessor = 3;  // of attend_decode at head_dim 128, by its registers
constexpr int kSumWarps = 8;

// A block adds up 32 columns of a row: warp w takes slots w, w + 8, ...
__global__ void __launch_bounds__(32 * kSumWarps) add_splits(const AttendParams a) {
  __shared__ float3 parts[kSumWarps][32];
  let_next_start();
  wait_for_previous();
  const auto sequence = static_cast<int>(blockIdx.y);
  if (a.sequences[sequence].n_rows != 1) return;
  const SplitPlan plan = a.plan[sequence];
  if (a.single && plan.n == 1) return;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int col = static_cast<int>(blockIdx.x) * 32 + lane;
  const bool live = col < a.out.cols;
  const int head = live ? col / a.head_dim : 0;
  float maximum = -CUDART_INF_F;
  float weights = 0;
  float sum = 0;
  const auto merge = [&](float other_maximum, float other_weights, float other_sum) {
    const float greater = fmaxf(maximum, other_maximum);
    const float own = maximum == -CUDART_INF_F ? 0.0f : power_of_two(maximum - greater);
    const float factor =
        other_maximum == -CUDART_INF_F ? 0.0f : power_of_two(other_maximum - greater);
    weights = weights * own + other_weights * factor;
    sum = sum * own + other_sum * factor;
    maximum = greater;
  };
  constexpr int kAhead = 4;
  for (int first = warp; first < plan.n; first += kAhead * kSumWarps) {
    float2 stats[kAhead];
    float sums[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int split = first + i * kSumWarps;
      stats[i] = {-CUDART_INF_F, 0.0f};
      sums[i] = 0;
      if (split < plan.n && live) {
        const int64_t slot = plan.begin + split;
        stats[i] = __ldcg(a.stats + slot * a.n_heads + head);
        sums[i] = __ldcg(a.partial + slot * a.out.cols + col);
      }
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) merge(stats[i].x, stats[i].y, sums[i]);
  }
  parts[warp][lane] = {maximum, weights, sum};
  __syncthreads();
  if (warp != 0) return;
  for (int w = 1; w < kSumWarps; ++w) merge(parts[w][lane].x, parts[w][lane].y, parts[w][lane].z);
  put_columns(a.out, a.sequences[sequence].first_row, col, sum / weights, live);
}

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

// Where things lie in the workspace, in bytes.
struct Workspace {
  int64_t plan = 0;
  int64_t stats = 0;
  int64_t partial = 0;
  int64_t rows = 0;
  int64_t bytes = 0;

  Workspace(int64_t slots, int64_t n_rows, int64_t n_sequences, int64_t n_heads, int64_t head_dim) {
    stats = plan + round_up(n_sequences * int64_t{sizeof(SplitPlan)}, kAlignment);
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

}  // namespace

void attend(const Exec& exec, View2D<const float> q, const StepRows& step, const HeadMap& heads,
            const KvView& cache, const AttendRule& rule, std::byte* workspace, unsigned forms,
            const Input& out) {
  if (heads.n_heads == 0 || step.n_sequences == 0 || q.rows == 0) return;
  check_step(q, step, heads, cache, rule, forms, out);
  const int64_t slots = wanted_slots(exec, step.n_sequences, cache.n_kv_heads, step.most_context);
  const Workspace place(slots + step.n_sequences - 1, step.n_rows, step.n_sequences, heads.n_heads,
                        cache.head_dim);
  const bool crossing = cache.head_dim % 32 != 0 && (forms & kInt8Form) != 0;
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
  a.first_kv_head = static_cast<int>(heads.first_kv_head);
  a.scale_log2 = rule.scale * 1.44269504f;
  a.window = static_cast<int>(std::min<int64_t>(rule.window, int64_t{1} << 30));
  a.out = out_forms(out, crossing ? 0u : forms);
  if (crossing) a.out.x = reinterpret_cast<float*>(workspace + place.rows);
  a.slots = static_cast<int>(slots);
  a.single = true;
  a.plan = reinterpret_cast<SplitPlan*>(workspace + place.plan);
  a.stats = reinterpret_cast<float2*>(workspace + place.stats);
  a.partial = reinterpret_cast<float*>(workspace + place.partial);
  // Steps of most_rows rows for every sequence have none with a single one.
  if (step.most_rows == 1 || step.n_rows != step.most_rows * step.n_sequences) {
    launch_decode(exec, a, cache.type);
    const dim3 grid(static_cast<unsigned>(div_up(q.cols, 32)),
                    static_cast<unsigned>(step.n_sequences));
    launch(exec, add_splits, grid, 32 * kSumWarps, 0, a);
  }
  if (step.most_rows > 1) launch_prefill(exec, a, cache.type, step.most_rows);
  if (crossing) {
    const auto blocks = static_cast<unsigned>(div_up(q.rows * (q.cols / 32), 8));
    launch(exec, put_forms, blocks, 256, 0, a.out.x, q.rows, out_forms(out, forms));
  }
}

int64_t attend_workspace_bytes(const Exec& exec, int64_t max_rows, int64_t max_sequences,
                               int64_t n_heads, int64_t n_kv_heads, int64_t head_dim,
                               int64_t max_context) {
  if (n_heads == 0 || n_kv_heads == 0) return 0;
  int64_t slots = 0;
  for (int64_t n = 1; n <= max_sequences; ++n) {
    slots = std::max(slots, wanted_slots(exec, n, n_kv_heads, max_context) + n - 1);
  }
  return Workspace(slots, max_rows, max_sequences, n_heads, head_dim).bytes;
}

}  // namespace spillway::cuda

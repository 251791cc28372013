// attend: cuts a step into tiles of queries that share a KV head and deals them to the workers; the
// arithmetic of a tile is in attend_lanes.h.
//
// Bytes moved a call: K and V of every sequence and KV head once for each tile of up to 8 queries
// (rows x heads of the group), f16: 4 * head_dim bytes a token; with a window only its tokens.
// Best measured on one core of an AMD Zen 5 server (EPYC, AVX-512, shared machine), 2026-11-22,
// tests/kernels/product_bench.cc, 9 heads over 3 KV heads of 64: prefill of 256 rows at 1024 tokens
// 104 GFLOP/s (42 % of 249); decode at 8192 tokens 25 GB/s of K and V (57 % of memory's 45).
#include <algorithm>
#include <atomic>

#include "kernels/core/int_math.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/parallel.h"

namespace spillway::cpu {
namespace {

struct Step {
  View2D<const float> q;
  const HeadMap& heads;
  const KvView& cache;
  const AttendRule& rule;
  View2D<float> out;
};

// Local query heads of KV head `kv` (a number in the model).
Range heads_of(const HeadMap& map, int64_t kv) {
  return {std::max(kv * map.group, map.first_head) - map.first_head,
          std::min((kv + 1) * map.group, map.first_head + map.n_heads) - map.first_head};
}

// How many of the first `tokens` positions the last of them sees.
int64_t seen_tokens(const AttendRule& rule, int64_t tokens) {
  return rule.window > 0 ? std::min(rule.window, tokens) : tokens;
}

// Queries [begin, end) of a sequence and KV head, counted row by row, head by head.
void attend_tile(const KernelTable& kernels, const Step& step, const AttendSequence& sequence,
                 int64_t kv, Range heads, Range queries) {
  const KvView& cache = step.cache;
  const int64_t head_bytes = cache.page_tokens * kv_row_bytes(cache.type, cache.head_dim);
  const int64_t local_kv = kv - step.heads.first_kv_head;
  AttendArgs args;
  args.n_queries = static_cast<int>(queries.size());
  args.k = cache.k + local_kv * head_bytes;
  args.v = cache.v + local_kv * head_bytes;
  args.type = cache.type;
  args.page_stride_bytes = cache.n_kv_heads * head_bytes;
  args.page_tokens = cache.page_tokens;
  args.pages = sequence.pages;
  args.head_dim = cache.head_dim;
  args.scale = step.rule.scale;
  for (int64_t i = 0; i < queries.size(); ++i) {
    const int64_t row = (queries.begin + i) / heads.size();
    const int64_t head = heads.begin + (queries.begin + i) % heads.size();
    const int64_t column = head * cache.head_dim;
    args.q[i] = step.q.row(sequence.first_row + row).data() + column;
    args.out[i] = step.out.row(sequence.first_row + row).data() + column;
    args.limit[i] = sequence.first_position + row + 1;
    args.first[i] = args.limit[i] - seen_tokens(step.rule, args.limit[i]);
  }
  kernels.attend(args);
}

void check_step(const Step& step, std::span<const AttendSequence> sequences) {
  const KvView& cache = step.cache;
  const HeadMap& heads = step.heads;
  CHECK(cache.head_dim > 0 && cache.head_dim % 2 == 0);
  CHECK_LE(cache.head_dim, kMaxHeadDim);
  CHECK(kv_type_fits(cache.type, cache.head_dim));
  CHECK_GT(cache.page_tokens, 0);
  CHECK_GT(heads.group, 0);
  CHECK_GE(step.rule.window, 0);
  CHECK_EQ(step.q.cols, heads.n_heads * cache.head_dim);
  CHECK_EQ(step.out.cols, step.q.cols);
  CHECK_EQ(step.out.rows, step.q.rows);
  CHECK(static_cast<const float*>(step.out.data) != step.q.data || step.q.rows == 0);
  CHECK_GE(heads.first_head / heads.group, heads.first_kv_head);
  CHECK_LT((heads.first_head + heads.n_heads - 1) / heads.group,
           heads.first_kv_head + cache.n_kv_heads);
  for (const AttendSequence& s : sequences) {
    CHECK(s.first_row >= 0 && s.n_rows >= 0 && s.first_position >= 0);
    CHECK_LE(s.first_row + s.n_rows, step.q.rows);
    const int64_t n_pages = div_up(s.first_position + s.n_rows, cache.page_tokens);
    for (int64_t p = 0; p < (s.n_rows > 0 ? n_pages : 0); ++p) {
      CHECK(s.pages[p] >= 0 && s.pages[p] < cache.n_pages);
    }
  }
}

}  // namespace

void attend(const Exec& exec, View2D<const float> q, std::span<const AttendSequence> sequences,
            const HeadMap& heads, const KvView& cache, const AttendRule& rule, View2D<float> out) {
  CHECK(exec.pool != nullptr);
  if (heads.n_heads == 0 || sequences.empty() || q.rows == 0) return;
  const Step step{q, heads, cache, rule, out};
  check_step(step, sequences);
  int64_t n_queries = 0;
  int64_t work = 0;
  for (const AttendSequence& s : sequences) {
    n_queries += s.n_rows * heads.n_heads;
    work += s.n_rows * heads.n_heads * seen_tokens(rule, s.first_position + s.n_rows) *
            cache.head_dim / 4;
  }
  const int workers = work < kSerialWork ? 1 : exec.pool->size();
  // Full tiles read K and V least; with few queries every worker gets some.
  const int64_t tile = std::clamp<int64_t>(n_queries / workers, 1, kQueryTile);
  const KernelTable& kernels = kernel_table(exec.isa);
  // Tiles are taken in turn by who is free: later rows see more tokens, and cores are not equal.
  std::atomic<int64_t> next{0};
  const auto run_worker = [&](int) {
    int64_t turn = 0;
    int64_t mine = next.fetch_add(1, std::memory_order_relaxed);
    for (const AttendSequence& s : sequences) {
      const int64_t last_kv = (heads.first_head + heads.n_heads - 1) / heads.group;
      for (int64_t kv = heads.first_head / heads.group; kv <= last_kv; ++kv) {
        const Range group = heads_of(heads, kv);
        const int64_t total = s.n_rows * group.size();
        for (int64_t begin = 0; begin < total; begin += tile, ++turn) {
          if (turn != mine) continue;
          attend_tile(kernels, step, s, kv, group, {begin, std::min(begin + tile, total)});
          mine = next.fetch_add(1, std::memory_order_relaxed);
        }
      }
    }
  };
  if (workers == 1) {
    run_worker(0);
  } else {
    exec.pool->run(run_worker);
  }
}

}  // namespace spillway::cpu

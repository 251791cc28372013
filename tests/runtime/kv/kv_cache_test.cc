// KvCache: the views of a rank's layers have the plan's shapes, lie apart and inside the ledger's
// bytes. Shapes only: the model's bytes are never looked at.
#include "runtime/kv/kv_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "parallel/planner.h"

namespace spillway::testing {
namespace {

ModelSpec shape(int64_t layers, int64_t heads, int64_t kv_heads, int64_t head_dim) {
  ModelSpec model;
  model.architecture = "llama";
  model.name = "shape";
  model.n_layers = layers;
  model.dim = 64;
  model.n_heads = heads;
  model.n_kv_heads = kv_heads;
  model.head_dim = head_dim;
  model.ff_dim = 96;
  model.vocab_size = 64;
  model.context_length = 200;
  model.rope.n_rot = head_dim;
  LayerSpec layer;
  layer.q = {QuantType::kF32, heads * head_dim, 64};
  layer.k = layer.v = {QuantType::kF32, kv_heads * head_dim, 64};
  layer.o = {QuantType::kF32, 64, heads * head_dim};
  layer.gate = layer.up = {QuantType::kF32, 96, 64};
  layer.down = {QuantType::kF32, 64, 96};
  model.layers.assign(static_cast<size_t>(layers), layer);
  model.embedding = {QuantType::kF32, 64, 64};
  return model;
}

void expect_sound(const ModelSpec& model, const Plan& plan, int rank) {
  const KvCache cache(model, plan, rank);
  const RankPart& part = plan.parts[static_cast<size_t>(rank)];
  const Range layers = plan.stages[static_cast<size_t>(part.stage)].layers;
  std::vector<std::pair<std::byte*, int64_t>> pieces;
  int64_t needed = 0;
  for (int64_t i = 0; i < layers.size(); ++i) {
    const KvView& view = cache.layer(i);
    EXPECT_EQ(view.n_kv_heads, part.layers[static_cast<size_t>(i)].kv_heads.size());
    EXPECT_EQ(view.n_pages, plan.kv.n_pages);
    EXPECT_EQ(view.page_tokens, plan.kv.page_tokens);
    EXPECT_EQ(view.head_dim, model.head_dim);
    EXPECT_EQ(view.type, plan.kv.type);
    const int64_t bytes =
        view.n_pages * view.n_kv_heads * view.page_tokens * kv_row_bytes(view.type, view.head_dim);
    needed += 2 * bytes;
    if (bytes == 0) continue;
    pieces.emplace_back(view.k, bytes);
    pieces.emplace_back(view.v, bytes);
    std::fill(view.k, view.k + bytes, std::byte{1});  // a sanitizer sees a byte too many
    std::fill(view.v, view.v + bytes, std::byte{2});
  }
  std::sort(pieces.begin(), pieces.end());
  for (size_t i = 1; i < pieces.size(); ++i) {
    EXPECT_LE(pieces[i - 1].first + pieces[i - 1].second, pieces[i].first);
  }
  EXPECT_EQ(cache.bytes(), plan.rank_bytes(rank, "kv"));
  EXPECT_GE(cache.bytes(), needed);
  EXPECT_LT(cache.bytes(), needed + 64 * 2 * layers.size() + 4096);
}

TEST(KvCacheTest, EveryRankOfEverySplit) {
  const ModelSpec model = shape(5, 6, 3, 32);
  for (const KvType type : {KvType::kF16, KvType::kF32, KvType::kQ8_0, KvType::kQ4_0}) {
    for (int n = 1; n <= 4; ++n) {
      for (const auto& split : all_splits(model, n, true)) {
        SCOPED_TRACE(split_text(split));
        PlanRequest request;
        request.split = split;
        request.kv_type = type;
        const Plan plan = make_plan(model, assumed_cluster(n), request);
        for (int rank = 0; rank < n; ++rank) expect_sound(model, plan, rank);
      }
    }
  }
}

TEST(KvCacheTest, ARankWithoutKvHeads) {
  const ModelSpec model = shape(1, 1, 1, 32);
  PlanRequest request;
  request.split = {{0, {1, 1}}};
  const Plan plan = make_plan(model, assumed_cluster(2), request);
  ASSERT_TRUE(plan.parts[1].layers[0].kv_heads.empty());
  for (int rank = 0; rank < 2; ++rank) expect_sound(model, plan, rank);
}

}  // namespace
}  // namespace spillway::testing

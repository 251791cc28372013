// Predicted times against the same arithmetic by hand.
#include "parallel/cost.h"

#include <gtest/gtest.h>

#include "kernels/core/packed_matrix.h"
#include "parallel/group_sum.h"
#include "parallel/planner.h"
#include "parallel/stage_clock.h"
#include "tests/parallel/made_up_gpus.h"
#include "tests/parallel/model_shapes.h"

namespace spillway {
namespace {

using testing::measured_cluster;
using testing::smollm2;
using testing::tiny_stories;

Plan plan_of(const ModelSpec& model, const std::string& split, const ClusterSpec& cluster) {
  PlanRequest request;
  request.split = parse_split(split);
  request.context = 512;
  return make_plan(model, cluster, request);
}

// A machine whose products cost nothing: only bytes count.
ClusterSpec bandwidth_only(int n) {
  ClusterSpec cluster = measured_cluster(n, 10.0);
  for (RankSpec& rank : cluster.ranks) rank.matrix_gop_per_s = 1e12;
  cluster.link = {0.0, 1e9, true};
  return cluster;
}

int64_t matrix_bytes(const ModelSpec& model) {
  int64_t bytes = 0;
  for (const LayerSpec& layer : model.layers) {
    for (const MatrixSpec& m :
         {layer.q, layer.k, layer.v, layer.o, layer.gate, layer.up, layer.down}) {
      bytes += packed_bytes(m.type, m.rows, m.cols);
    }
  }
  return bytes + packed_bytes(model.embedding.type, model.vocab_size, model.dim);
}

TEST(Predict, OneRankIsBytesOverBandwidth) {
  for (const ModelSpec& model : {smollm2(), tiny_stories()}) {
    const ClusterSpec cluster = bandwidth_only(1);
    const Plan plan = plan_of(model, "1", cluster);
    const Prediction p = predict(plan, model, cluster, 100);
    EXPECT_NEAR(p.matrix_ms, static_cast<double>(matrix_bytes(model)) / 10e6, 1e-9);
    const double kv = 2.0 * 100 * static_cast<double>(model.n_kv_heads * model.head_dim * 2) *
                      static_cast<double>(model.n_layers);
    EXPECT_NEAR(p.attention_ms, kv / 10e6, 1e-9);
    EXPECT_EQ(p.collective_ms, 0);
    EXPECT_EQ(p.hop_ms, 0);
    EXPECT_NEAR(p.total_ms, p.matrix_ms + p.attention_ms, 1e-12);
    EXPECT_NEAR(p.decode_tok_per_s, 1000 / p.total_ms, 1e-9);
    EXPECT_TRUE(p.measured_cluster);
  }
}

TEST(Predict, WindowsBoundWhatAttentionReads) {
  ModelSpec model = smollm2();
  for (LayerSpec& layer : model.layers) layer.window = 40;
  model.layers.back().window = 0;
  ClusterSpec cluster = bandwidth_only(1);
  const Plan plan = plan_of(model, "1", cluster);
  const double token_ms = 2.0 * 3 * 64 * 2 / 10e6;
  EXPECT_NEAR(predict(plan, model, cluster, 100).attention_ms, (29 * 40 + 100) * token_ms, 1e-9);
  EXPECT_NEAR(predict(plan, model, cluster, 40).attention_ms, 30 * 40 * token_ms, 1e-9);
  EXPECT_NEAR(predict(plan, model, cluster, 7).attention_ms, 30 * 7 * token_ms, 1e-9);
  // Prefill of 512 rows: pairs of query and key are 40 * 41 / 2 + 472 * 40 with a window.
  ModelSpec all = model;
  for (LayerSpec& layer : all.layers) layer.window = 0;
  cluster.ranks[0].matrix_gop_per_s = 2.0;
  const auto prefill_ms = [&](const ModelSpec& m) {
    return 512e3 / predict(plan, m, cluster, 0).prefill_tok_per_s;
  };
  const double saved = 29 * (512 * 513 / 2.0 - (40 * 41 / 2.0 + 472 * 40)) * 2 * (9 * 64) * 4 / 2e6;
  EXPECT_NEAR(prefill_ms(all) - prefill_ms(model), saved, 1e-3);
}

TEST(Predict, ProductRateBoundsWhenItIsSlow) {
  const ModelSpec model = smollm2();
  ClusterSpec cluster = bandwidth_only(1);
  cluster.ranks[0].read_gb_per_s = 1e9;
  cluster.ranks[0].matrix_gop_per_s = 2.0;
  const double products = 30.0 * 576 * (64 * (9 + 3 + 3 + 9) + 3 * 1536) + 49152.0 * 576;
  const Plan plan = plan_of(model, "1", cluster);
  EXPECT_NEAR(predict(plan, model, cluster, 0).matrix_ms, products / 2e6, 1e-6);
}

TEST(Predict, HalvesWaitForTheirSlowestRank) {
  const ModelSpec model = smollm2();
  const ClusterSpec cluster = bandwidth_only(2);
  const double one =
      predict(plan_of(model, "1", bandwidth_only(1)), model, bandwidth_only(1), 0).matrix_ms;
  const double even = predict(plan_of(model, "1:1", cluster), model, cluster, 0).matrix_ms;
  EXPECT_GT(even, one / 2);  // 2 of 3 KV groups are on one rank in every layer
  EXPECT_LT(even, one * 2.0 / 3);
  const double skewed = predict(plan_of(model, "3:1", cluster), model, cluster, 0).matrix_ms;
  EXPECT_GT(skewed, even);
  EXPECT_LT(skewed, one);
  const double stages = predict(plan_of(model, "1+1", cluster), model, cluster, 0).matrix_ms;
  EXPECT_NEAR(stages, one, 1e-9);  // one after the other
}

TEST(Predict, CollectivesAndHops) {
  const ModelSpec model = smollm2();
  ClusterSpec cluster = bandwidth_only(3);
  cluster.link = {10.0, 1.0, true};
  const double sum_ms = 0.010 + 576 * 8 / 1e6;
  const double hop_ms = 0.010 + 576 * 4 / 1e6;
  const Prediction tp = predict(plan_of(model, "1:1:1", cluster), model, cluster, 0);
  EXPECT_NEAR(tp.collective_ms, 61 * sum_ms, 1e-9);
  EXPECT_NEAR(tp.hop_ms, 2 * 0.010, 1e-9);
  const Prediction mixed = predict(plan_of(model, "10@1+20@1:1", cluster), model, cluster, 0);
  EXPECT_NEAR(mixed.collective_ms, 40 * sum_ms, 1e-9);  // the embedding is on one rank
  EXPECT_NEAR(mixed.hop_ms, hop_ms + 2 * 0.010, 1e-9);
}

TEST(Predict, MeasuredPairsOfGpusGiveTheSumsTimes) {
  const ModelSpec model = smollm2();
  ClusterSpec cluster = testing::gpus({80, 80, 80});
  const Plan plan = plan_of(model, "1:1:1", cluster);
  EXPECT_NEAR(predict(plan, model, cluster, 0).collective_ms,
              61 * (0.005 + 4.0 / 3 * 576 * 4 / 150e6), 1e-9);
  cluster.pairs = {{0, 1, "peer", 300, 4}, {0, 2, "peer", 300, 4}};
  EXPECT_NEAR(predict(plan, model, cluster, 0).collective_ms,
              61 * (0.005 + 4.0 / 3 * 576 * 4 / 150e6), 1e-9);  // a pair is missing
  cluster.pairs.push_back({1, 2, "staged", 10, 30});
  EXPECT_NEAR(predict(plan, model, cluster, 0).collective_ms, 61 * 0.030, 1e-9);
  EXPECT_NEAR(group_sum_ms(cluster, {0, 1, 2}, true, 100, 576),
              0.030 + 4.0 / 3 * (100 * 576 * 4 - 16384) / 10e6, 1e-9);
  EXPECT_NEAR(group_sum_ms(cluster, {0, 1}, true, 100, 576),
              0.004 + (100 * 576 * 4 - 16384) / 300e6, 1e-9);
}

// On GPUs the codes' own time is more than the bytes they spare in a short cache, not in a long
// one.
TEST(Predict, ACacheOfCodesCostsAGpuItsDecoding) {
  const ModelSpec model = testing::llama_8b();
  const ClusterSpec cluster = testing::gpus({80});
  PlanRequest request = testing::on(DeviceChoice::kGpu, "1");
  request.context = 65536;
  const auto total_ms = [&](KvType type, int64_t tokens) {
    request.kv_type = type;
    return predict(make_plan(model, cluster, request), model, cluster, tokens).total_ms;
  };
  EXPECT_NEAR(total_ms(KvType::kQ8_0, 0) - total_ms(KvType::kF16, 0), 32 * 0.0016, 1e-9);
  EXPECT_LT(total_ms(KvType::kQ8_0, 60000), total_ms(KvType::kF16, 60000));
  EXPECT_DOUBLE_EQ(total_ms(KvType::kF32, 0), total_ms(KvType::kF16, 0));
}

TEST(Predict, UnmeasuredRatesAreTheAssumedOnes) {
  const ModelSpec model = smollm2();
  ClusterSpec blank = assumed_cluster(2);
  const Plan plan = plan_of(model, "1:1", blank);
  const Prediction assumed = predict(plan, model, blank, 10);
  EXPECT_FALSE(assumed.measured_cluster);
  for (RankSpec& rank : blank.ranks) rank.read_gb_per_s = rank.matrix_gop_per_s = 0;
  blank.link = {};
  EXPECT_DOUBLE_EQ(predict(plan, model, blank, 10).total_ms, assumed.total_ms);
  ClusterSpec half = measured_cluster(2);
  half.link.measured = false;
  EXPECT_FALSE(predict(plan, model, half, 10).measured_cluster);
}

TEST(Predict, PrefillIsFasterThanDecodeAndFollowsTheProductRate) {
  const ModelSpec model = smollm2();
  ClusterSpec cluster = measured_cluster(1);
  const Plan plan = plan_of(model, "1", cluster);
  const Prediction slow = predict(plan, model, cluster, 0);
  EXPECT_GT(slow.prefill_tok_per_s, slow.decode_tok_per_s);
  cluster.ranks[0].matrix_gop_per_s *= 2;
  EXPECT_GT(predict(plan, model, cluster, 0).prefill_tok_per_s, 1.8 * slow.prefill_tok_per_s);
}

// A CPU reads from the page cache what that has room for, at the speed of its products; the rest is
// waited for.
TEST(Predict, ADiskIsWaitedForWhereThePageCacheHasNoRoom) {
  const ModelSpec model = smollm2();
  ClusterSpec cluster = bandwidth_only(1);  // 10 GB/s
  cluster.ranks[0].disk_gb_per_s = 0.1;
  cluster.ranks[0].memory_free_bytes = int64_t{8} << 30;
  PlanRequest request;
  request.context = 512;
  const Plan resident = make_plan(model, cluster, request);
  request.places = parse_places("layers all = disk");
  const Plan plan = make_plan(model, cluster, request);
  EXPECT_EQ(plan.prediction.disk_ms, 0);
  EXPECT_DOUBLE_EQ(plan.prediction.total_ms, resident.prediction.total_ms);
  EXPECT_EQ(weight_bytes_per_token(plan, model, 0), weight_bytes_per_token(resident, model, 0));

  const int64_t on_disk = plan.rank_bytes(0, "weights", "disk");
  const int64_t taken = plan.rank_bytes(0, "", "host");
  EXPECT_EQ(plan.rank_bytes(0, "program", "host") - resident.rank_bytes(0, "program", "host"),
            div_up(on_disk, 512));
  // Room for a quarter of it, and for nothing; the planner leaves 1/32 of what is free.
  const auto all_ms = static_cast<double>(on_disk) / 0.1e6;
  for (const double share : {0.25, 0.0}) {
    const double room = static_cast<double>(taken) + share * static_cast<double>(on_disk);
    cluster.ranks[0].memory_free_bytes = static_cast<int64_t>(room * 32 / 31);
    const double total = predict(plan, model, cluster, 0).total_ms;
    EXPECT_NEAR(total, (1 - share) * all_ms, 0.05 * all_ms) << share;
  }
}

TEST(WeightBytesPerToken, LayersNormsAndHeadButNoEmbeddingRowTable) {
  const ModelSpec model = tiny_stories();  // its output is a matrix of its own
  const ClusterSpec cluster = measured_cluster(2);
  const Plan one = plan_of(model, "1", measured_cluster(1));
  const int64_t norms = (2 * 2 + 1) * 128 * 4;
  EXPECT_EQ(weight_bytes_per_token(one, model, 0), matrix_bytes(model) + norms);
  const Plan two = plan_of(model, "1+1", cluster);
  EXPECT_EQ(weight_bytes_per_token(two, model, 0) + weight_bytes_per_token(two, model, 1),
            matrix_bytes(model) + norms);
  const ModelSpec tied = smollm2();
  const Plan shared = plan_of(tied, "1", measured_cluster(1));
  EXPECT_EQ(weight_bytes_per_token(shared, tied, 0), shared.rank_bytes(0, "weights"));
}

TEST(PredictedContext, IsWithinThePlan) {
  PlanRequest request;
  request.context = 100;
  EXPECT_EQ(predicted_context(make_plan(smollm2(), assumed_cluster(1), request)), 100);
  EXPECT_EQ(predicted_context(make_plan(smollm2(), assumed_cluster(1), {})), 512);
}

}  // namespace
}  // namespace spillway

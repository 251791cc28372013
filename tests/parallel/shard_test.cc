// Cutting heads, columns and rows: covering, alignment, shares over many layers.
#include "parallel/shard.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>

#include "tests/parallel/model_shapes.h"

namespace spillway {
namespace {

using testing::llama_70b;
using testing::smollm2;
using testing::tiny_stories;

int64_t sizes(const std::vector<Range>& ranges) {
  int64_t sum = 0;
  for (const Range& range : ranges) sum += range.size();
  return sum;
}

TEST(SplitUnits, EvenSplitOfWholeUnits) {
  const std::vector<double> shares = {1, 1};
  std::vector<double> carry(2, 0.0);
  const auto ranges = split_units(128, 32, shares, carry);
  EXPECT_EQ(ranges[0], (Range{0, 64}));
  EXPECT_EQ(ranges[1], (Range{64, 128}));
  EXPECT_DOUBLE_EQ(carry[0], 0.0);
}

TEST(SplitUnits, CarryAlternatesTheOddUnit) {
  const std::vector<double> shares = {1, 1};
  std::vector<double> carry(2, 0.0);
  EXPECT_EQ(split_units(9, 3, shares, carry)[0].size(), 6);
  EXPECT_EQ(split_units(9, 3, shares, carry)[0].size(), 3);
  EXPECT_EQ(split_units(9, 3, shares, carry)[0].size(), 6);
}

TEST(SplitUnits, LastUnitMayBeShort) {
  const std::vector<double> shares = {1, 1, 1};
  std::vector<double> carry(3, 0.0);
  const auto ranges = split_units(100, 32, shares, carry);
  EXPECT_EQ(sizes(ranges), 100);
  EXPECT_EQ(ranges.back().end, 100);
  for (const Range& range : ranges) EXPECT_EQ(range.begin % 32, 0) << range.begin;
  EXPECT_NEAR(carry[0] + carry[1] + carry[2], 0.0, 1e-9);
}

TEST(SplitUnits, NothingToSplitAndMorePartsThanUnits) {
  std::vector<double> carry(3, 0.0);
  const std::vector<double> shares = {1, 1, 1};
  for (const Range& range : split_units(0, 8, shares, carry)) EXPECT_TRUE(range.empty());
  const auto one = split_units(8, 8, shares, carry);
  EXPECT_EQ(sizes(one), 8);
}

TEST(SplitUnits, AShareOfZeroGetsNothing) {
  const std::vector<double> shares = {0, 1};
  std::vector<double> carry(2, 0.0);
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(split_units(7, 1, shares, carry)[0].empty());
}

TEST(SplitUnitsDeathTest, BadArgumentsAreBugs) {
  std::vector<double> carry(2, 0.0);
  const std::vector<double> shares = {1, 1};
  const std::vector<double> nothing = {0, 0};
  const std::vector<double> three = {1, 1, 1};
  const std::vector<double> negative = {2, -1};
  EXPECT_DEATH(split_units(8, 0, shares, carry), "unit");
  EXPECT_DEATH(split_units(-1, 8, shares, carry), "n");
  EXPECT_DEATH(split_units(8, 8, nothing, carry), "total");
  EXPECT_DEATH(split_units(8, 8, three, carry), "carry");
  EXPECT_DEATH(split_units(8, 8, negative, carry), "share");
}

TEST(SplitUnits, RandomSharesAreKeptOverManyCalls) {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    const size_t parts = 1 + random() % 8;
    const int64_t unit = 1 + static_cast<int64_t>(random() % 64);
    std::vector<double> shares(parts);
    for (double& share : shares) share = 0.05 + std::uniform_real_distribution<>(0, 1)(random);
    const double total = std::accumulate(shares.begin(), shares.end(), 0.0);
    std::vector<double> carry(parts, 0.0);
    std::vector<double> got(parts, 0.0);
    double all = 0;
    for (int call = 0; call < 60; ++call) {
      const int64_t n = static_cast<int64_t>(random() % 500);
      const auto ranges = split_units(n, unit, shares, carry);
      int64_t at = 0;
      for (size_t i = 0; i < parts; ++i) {
        ASSERT_EQ(ranges[i].begin, at);
        ASSERT_GE(ranges[i].size(), 0);
        ASSERT_TRUE(ranges[i].empty() || ranges[i].begin % unit == 0);
        got[i] += static_cast<double>(ranges[i].size());
        at = ranges[i].end;
      }
      ASSERT_EQ(at, n);
      all += static_cast<double>(n);
    }
    // The rounding error never grows beyond a few units, however many calls.
    for (size_t i = 0; i < parts; ++i) {
      EXPECT_LT(std::fabs(got[i] - shares[i] / total * all),
                static_cast<double>(unit) * static_cast<double>(parts + 1));
    }
  }
}

TEST(HeadUnit, WholeGroupsWhileTheyLast) {
  const ModelSpec model = smollm2();
  for (int64_t tp = 1; tp <= 3; ++tp) EXPECT_EQ(head_unit(model, model.layers[0], tp), 3);
  EXPECT_EQ(head_unit(model, model.layers[0], 4), 1);
  EXPECT_EQ(head_unit(model, model.layers[0], 5), 1);
}

TEST(HeadUnit, QuantBlocksOfTheOutputProjection) {
  const ModelSpec tiny = tiny_stories();  // 16 values a head: a block of 32 is two heads
  EXPECT_EQ(head_unit(tiny, tiny.layers[0], 4), 2);
  EXPECT_EQ(head_unit(tiny, tiny.layers[0], 8), 2);
  const ModelSpec large = llama_70b();  // blocks of 256 are two heads of 128
  EXPECT_EQ(head_unit(large, large.layers[0], 8), 8);
  EXPECT_EQ(head_unit(large, large.layers[0], 9), 2);
}

TEST(HeadUnit, GroupsThatDoNotFillABlockAreJoined) {
  // 6 heads of 48, groups of 2: 96 columns; blocks of 256 need 8 groups, more than there are.
  ModelSpec model = testing::model_of({"odd", 1, 256, 6, 3, 48, 256, 64, 64, QuantType::kQ4_K});
  EXPECT_EQ(head_unit(model, model.layers[0], 2), 6);
  // 12 heads of 16 without groups: two heads a block of 32.
  model = testing::model_of({"small", 1, 192, 12, 12, 16, 256, 64, 64});
  EXPECT_EQ(head_unit(model, model.layers[0], 6), 2);
  EXPECT_EQ(head_unit(model, model.layers[0], 7), 2);
}

TEST(FfUnit, BlockOfDownAndAtLeast32) {
  EXPECT_EQ(ff_unit(smollm2().layers[0]), 32);
  EXPECT_EQ(ff_unit(llama_70b().layers[0]), 256);
  ModelSpec plain = testing::model_of({"f32", 1, 64, 2, 2, 32, 64, 64, 64, QuantType::kF32});
  EXPECT_EQ(ff_unit(plain.layers[0]), 32);
}

// Everything that must hold of a sharded stage, whatever the shape.
void expect_sound(const ModelSpec& model, const Range& layers, const std::vector<double>& shares) {
  const auto parts = shard_layers(model, layers, shares);
  ASSERT_EQ(parts.size(), shares.size());
  const int64_t group = model.heads_per_kv();
  for (int64_t l = 0; l < layers.size(); ++l) {
    const LayerSpec& layer = model.layers[layers.begin + l];
    const int64_t unit = head_unit(model, layer, static_cast<int64_t>(shares.size()));
    int64_t head = 0;
    int64_t ff = 0;
    for (const auto& rank : parts) {
      ASSERT_EQ(static_cast<int64_t>(rank.size()), layers.size());
      const LayerPart& part = rank[l];
      ASSERT_EQ(part.heads.begin, head);
      ASSERT_EQ(part.ff.begin, ff);
      head = part.heads.end;
      ff = part.ff.end;
      if (!part.ff.empty()) {
        ASSERT_EQ(part.ff.begin % ff_unit(layer), 0);
      }
      if (part.heads.empty()) {
        ASSERT_TRUE(part.kv_heads.empty());
        continue;
      }
      ASSERT_EQ(part.heads.begin % unit, 0);
      ASSERT_EQ(part.heads.begin * model.head_dim % quant_info(layer.o.type).block_elements, 0);
      ASSERT_LE(part.kv_heads.begin * group, part.heads.begin);
      ASSERT_GE(part.kv_heads.end * group, part.heads.end);
      ASSERT_LT((part.heads.end - 1) / group, part.kv_heads.end);
    }
    ASSERT_EQ(head, model.n_heads);
    ASSERT_EQ(ff, model.ff_dim);
  }
}

double achieved_ff(const ModelSpec& model, const std::vector<LayerPart>& rank) {
  int64_t sum = 0;
  for (const LayerPart& part : rank) sum += part.ff.size();
  return static_cast<double>(sum) /
         (static_cast<double>(model.ff_dim) * static_cast<double>(rank.size()));
}

double achieved_heads(const ModelSpec& model, const std::vector<LayerPart>& rank) {
  int64_t sum = 0;
  for (const LayerPart& part : rank) sum += part.heads.size();
  return static_cast<double>(sum) /
         (static_cast<double>(model.n_heads) * static_cast<double>(rank.size()));
}

TEST(ShardLayers, SmolLm2EvenDegrees) {
  const ModelSpec model = smollm2();
  for (size_t tp = 1; tp <= 5; ++tp) {
    const std::vector<double> shares(tp, 1.0);
    expect_sound(model, {0, 30}, shares);
    const auto parts = shard_layers(model, {0, 30}, shares);
    for (const auto& rank : parts) {
      EXPECT_NEAR(achieved_heads(model, rank), 1.0 / static_cast<double>(tp), 0.01) << tp;
      EXPECT_NEAR(achieved_ff(model, rank), 1.0 / static_cast<double>(tp), 0.002) << tp;
    }
  }
}

TEST(ShardLayers, KvHeadsAreOnOneRankWhileThereAreGroupsForAll) {
  const ModelSpec model = smollm2();
  for (const auto& [tp, kv_heads] : {std::pair{3, 3}, std::pair{4, 0}}) {
    const auto parts = shard_layers(model, {0, 1}, std::vector<double>(tp, 1.0));
    int64_t sum = 0;
    for (const auto& rank : parts) sum += rank[0].kv_heads.size();
    if (kv_heads > 0) {
      EXPECT_EQ(sum, kv_heads);
    } else {
      EXPECT_GT(sum, 3);  // replicated
    }
  }
}

TEST(ShardLayers, UnevenSharesAreReachedOverTheLayers) {
  const ModelSpec model = smollm2();
  const std::vector<double> shares = {5, 2, 1};
  expect_sound(model, {3, 30}, shares);
  const auto parts = shard_layers(model, {0, 30}, shares);
  for (size_t i = 0; i < shares.size(); ++i) {
    EXPECT_NEAR(achieved_heads(model, parts[i]), shares[i] / 8, 0.035);
    EXPECT_NEAR(achieved_ff(model, parts[i]), shares[i] / 8, 0.002);
  }
}

TEST(ShardLayers, Llama70bOnThreeRanks) {
  const ModelSpec model = llama_70b();
  const std::vector<double> shares(3, 1.0);
  expect_sound(model, {0, 80}, shares);
  const auto parts = shard_layers(model, {0, 80}, shares);
  for (const auto& rank : parts) {
    EXPECT_NEAR(achieved_heads(model, rank), 1.0 / 3, 0.005);
    EXPECT_NEAR(achieved_ff(model, rank), 1.0 / 3, 0.001);
    for (const LayerPart& part : rank) EXPECT_EQ(part.heads.size() % 8, 0);
  }
}

TEST(ShardLayers, MoreRanksThanHeadsLeavesSomeWithout) {
  const ModelSpec model = tiny_stories();
  expect_sound(model, {0, 2}, std::vector<double>(7, 1.0));
  const auto parts = shard_layers(model, {0, 2}, std::vector<double>(7, 1.0));
  int empty = 0;
  for (const auto& rank : parts) empty += rank[0].heads.empty() ? 1 : 0;
  EXPECT_EQ(empty, 3);  // 8 heads in pairs for 7 ranks
}

TEST(ShardLayers, SameInputSameCut) {
  const ModelSpec model = smollm2();
  const std::vector<double> shares = {0.3, 0.3, 0.4};
  EXPECT_EQ(shard_layers(model, {0, 30}, shares), shard_layers(model, {0, 30}, shares));
}

TEST(ShardLayers, RandomShapes) {
  std::mt19937 random(11);
  const QuantType types[] = {QuantType::kF32,  QuantType::kF16,  QuantType::kQ4_0,
                             QuantType::kQ8_0, QuantType::kQ6_K, QuantType::kQ4_K};
  for (int round = 0; round < 300; ++round) {
    testing::Shape shape{"random", 0, 0, 0, 0, 0, 0, 1000, 100};
    shape.n_layers = 1 + random() % 12;
    shape.n_kv_heads = 1 + random() % 8;
    shape.n_heads = shape.n_kv_heads * (1 + random() % 8);
    shape.head_dim = 16 * (1 + random() % 10);
    shape.ff_dim = 32 * (1 + random() % 64);
    shape.dim = 256;
    shape.type = types[random() % 6];
    const ModelSpec model = testing::model_of(shape);
    std::vector<double> shares(1 + random() % 9);
    for (double& share : shares) share = 0.1 + std::uniform_real_distribution<>(0, 3)(random);
    expect_sound(model, {0, shape.n_layers}, shares);
    if (::testing::Test::HasFatalFailure()) FAIL() << "round " << round;
  }
}

}  // namespace
}  // namespace spillway

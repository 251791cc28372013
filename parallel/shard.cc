// See shard.h. Called by planner.cc; never looks at machines or bytes, only at shapes and shares.
#include "parallel/shard.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/core/quant.h"

namespace spillway {
namespace {

// Deficits nearer than this are a tie, which the lower index wins: rounding noise of a sum like
// 1/3 + 1/3 + 1/3 must not decide who gets a head.
constexpr double kTie = 1e-9;

// Inputs of products are quantised in blocks of 32 columns, also beside plain float weights.
constexpr int64_t kInputBlock = 32;

int64_t column_block(const MatrixSpec& matrix) {
  return std::lcm(kInputBlock, quant_info(matrix.type).block_elements);
}

// Index of the share that lacks most (sign +1) or has most too much (sign -1) of its ideal; of the
// latter only those that have something to give.
size_t extreme(const std::vector<double>& ideal, const std::vector<int64_t>& units, double sign) {
  size_t best = ideal.size();
  double best_gap = 0;
  for (size_t i = 0; i < ideal.size(); ++i) {
    if (sign < 0 && units[i] == 0) continue;
    const double gap = sign * (ideal[i] - static_cast<double>(units[i]));
    if (best == ideal.size() || gap > best_gap + kTie) {
      best = i;
      best_gap = gap;
    }
  }
  CHECK_LT(best, ideal.size());
  return best;
}

}  // namespace

std::vector<Range> split_units(int64_t n, int64_t unit, std::span<const double> shares,
                               std::vector<double>& carry) {
  CHECK_GE(n, 0);
  CHECK_GT(unit, 0);
  CHECK(!shares.empty());
  CHECK_EQ(carry.size(), shares.size());
  double total = 0;
  for (const double share : shares) {
    CHECK(std::isfinite(share) && share >= 0);
    total += share;
  }
  CHECK_GT(total, 0);

  // In units; the carry is in elements, since units may differ from layer to layer.
  const size_t parts = shares.size();
  std::vector<double> ideal(parts);
  std::vector<int64_t> units(parts);
  int64_t left = div_up(n, unit);
  for (size_t i = 0; i < parts; ++i) {
    const double elements = shares[i] / total * static_cast<double>(n) + carry[i];
    ideal[i] = elements / static_cast<double>(unit);
    units[i] = std::max<int64_t>(0, static_cast<int64_t>(std::floor(ideal[i] + kTie)));
    left -= units[i];
  }
  for (; left > 0; --left) ++units[extreme(ideal, units, +1)];
  for (; left < 0; ++left) --units[extreme(ideal, units, -1)];

  std::vector<Range> ranges(parts);
  int64_t at = 0;
  for (size_t i = 0; i < parts; ++i) {
    const int64_t end = std::min(n, at + units[i] * unit);
    ranges[i] = {at, end};
    carry[i] = ideal[i] * static_cast<double>(unit) - static_cast<double>(end - at);
    at = end;
  }
  CHECK_EQ(at, n);
  return ranges;
}

int64_t head_unit(const ModelSpec& model, const LayerSpec& layer, int64_t tp) {
  CHECK_GT(model.n_heads, 0);
  CHECK_GT(model.head_dim, 0);
  CHECK_GT(tp, 0);
  const int64_t block = column_block(layer.o);
  // The smallest multiple of `heads` whose columns of the output projection are whole blocks.
  const auto aligned = [&](int64_t heads) {
    return heads * (block / std::gcd(block, heads * model.head_dim));
  };
  const int64_t groups = aligned(model.heads_per_kv());
  if (div_up(model.n_heads, groups) >= tp) return std::min(groups, model.n_heads);
  return std::min(aligned(1), model.n_heads);
}

int64_t ff_unit(const LayerSpec& layer) { return column_block(layer.down); }

std::vector<std::vector<LayerPart>> shard_layers(const ModelSpec& model, const Range& layers,
                                                 std::span<const double> shares) {
  CHECK_GE(layers.begin, 0);
  CHECK_LE(layers.end, static_cast<int64_t>(model.layers.size()));
  const size_t tp = shares.size();
  const int64_t group = model.heads_per_kv();
  std::vector<std::vector<LayerPart>> parts(tp);
  std::vector<double> head_carry(tp, 0.0);
  std::vector<double> ff_carry(tp, 0.0);
  for (int64_t index = layers.begin; index < layers.end; ++index) {
    const LayerSpec& layer = model.layers[index];
    const int64_t unit = head_unit(model, layer, static_cast<int64_t>(tp));
    const std::vector<Range> heads = split_units(model.n_heads, unit, shares, head_carry);
    const std::vector<Range> ff = split_units(model.ff_dim, ff_unit(layer), shares, ff_carry);
    for (size_t i = 0; i < tp; ++i) {
      LayerPart part;
      part.heads = heads[i];
      part.kv_heads.begin = heads[i].begin / group;
      part.kv_heads.end = heads[i].empty() ? part.kv_heads.begin : div_up(heads[i].end, group);
      part.ff = ff[i];
      parts[i].push_back(part);
    }
  }
  return parts;
}

}  // namespace spillway

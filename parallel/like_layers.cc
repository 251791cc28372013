// See like_layers.h.
#include "parallel/like_layers.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <tuple>
#include <utility>

namespace spillway {
namespace {

bool same_matrix(const MatrixSpec& a, const MatrixSpec& b) {
  return a.type == b.type && a.rows == b.rows && a.cols == b.cols;
}

// All that is no matrix. A field that is added must be named here: it would not compile.
auto flags_of(const LayerSpec& layer) {
  const auto& [q, k, v, o, gate, up, down, q_bias, k_bias, v_bias, o_bias, gate_bias, up_bias,
               down_bias, q_norm, k_norm, attention_post_norm, feed_forward_post_norm, window] =
      layer;
  return std::tuple(q_bias, k_bias, v_bias, o_bias, gate_bias, up_bias, down_bias, q_norm, k_norm,
                    attention_post_norm, feed_forward_post_norm, window);
}

using Sizes = std::array<int64_t, 3>;

Sizes attention_sizes(const LayerPart& part) {
  return {part.heads.size(), part.kv_heads.size(), static_cast<int64_t>(part.attention)};
}

Sizes feed_forward_sizes(const LayerPart& part) {
  return {part.ff.size(), part.ff_on_cpu.size(), static_cast<int64_t>(part.feed_forward)};
}

uint64_t mixed(uint64_t hash, const Sizes& sizes) {
  for (const int64_t size : sizes) {
    hash = (hash ^ static_cast<uint64_t>(size)) * 0x9e3779b97f4a7c15u;
    hash ^= hash >> 29;
  }
  return hash;
}

// Of each of n layers the first that is the same.
std::vector<size_t> layer_kinds(const LayerSpec* layers, size_t n) {
  std::vector<size_t> kinds(n);
  std::vector<size_t> firsts;
  for (size_t i = 0; i < n; ++i) {
    const auto same = [&](size_t first) { return same_layer(layers[i], layers[first]); };
    const auto found = std::find_if(firsts.begin(), firsts.end(), same);
    kinds[i] = found == firsts.end() ? i : *found;
    if (found == firsts.end()) firsts.push_back(i);
  }
  return kinds;
}

}  // namespace

bool same_layer(const LayerSpec& a, const LayerSpec& b) {
  return same_matrix(a.q, b.q) && same_matrix(a.k, b.k) && same_matrix(a.v, b.v) &&
         same_matrix(a.o, b.o) && same_matrix(a.gate, b.gate) && same_matrix(a.up, b.up) &&
         same_matrix(a.down, b.down) && flags_of(a) == flags_of(b);
}

bool same_size(const LayerPart& a, const LayerPart& b) {
  return attention_sizes(a) == attention_sizes(b) && feed_forward_sizes(a) == feed_forward_sizes(b);
}

std::vector<size_t> like_halves(const Plan& plan, const ModelSpec& model, const StagePlan& stage,
                                const std::vector<int>& ranks) {
  const auto n = static_cast<size_t>(stage.layers.size());
  const LayerSpec* layers = model.layers.data() + stage.layers.begin;
  const std::vector<size_t> kinds = layer_kinds(layers, n);
  std::vector<const LayerPart*> parts;  // of each rank
  for (const int rank : ranks) {
    parts.push_back(plan.parts[static_cast<size_t>(rank)].layers.data());
  }
  std::vector<size_t> like(2 * n);
  std::vector<std::pair<uint64_t, size_t>> seen;  // the first of each kind, by its hash
  for (const size_t half : {size_t{0}, size_t{1}}) {
    seen.clear();
    for (size_t i = 0; i < n; ++i) {
      uint64_t hash = kinds[i];
      for (const LayerPart* part : parts) {
        hash = mixed(hash, half == 0 ? attention_sizes(part[i]) : feed_forward_sizes(part[i]));
      }
      const auto same = [&](const std::pair<uint64_t, size_t>& before) {
        const size_t b = before.second;
        return before.first == hash && kinds[b] == kinds[i] &&
               std::all_of(parts.begin(), parts.end(), [&](const LayerPart* part) {
                 return half == 0 ? attention_sizes(part[i]) == attention_sizes(part[b])
                                  : feed_forward_sizes(part[i]) == feed_forward_sizes(part[b]);
               });
      };
      const auto found = std::find_if(seen.begin(), seen.end(), same);
      like[2 * i + half] = 2 * (found == seen.end() ? i : found->second) + half;
      if (found == seen.end()) seen.emplace_back(hash, i);
    }
  }
  return like;
}

}  // namespace spillway

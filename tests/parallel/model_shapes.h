// Model shapes that the tests of parallel/ plan for. No weights, no files.
#pragma once

#include <algorithm>
#include <string>

#include "parallel/cluster_spec.h"
#include "parallel/model_spec.h"

namespace spillway::testing {

struct Shape {
  std::string name;
  int64_t n_layers, dim, n_heads, n_kv_heads, head_dim, ff_dim, vocab_size, context_length;
  QuantType type = QuantType::kQ4_1;
  bool tied = true;
};

inline ModelSpec model_of(const Shape& shape) {
  ModelSpec model;
  model.architecture = "llama";
  model.name = shape.name;
  model.header_hash = 0x1234;
  model.n_layers = shape.n_layers;
  model.dim = shape.dim;
  model.n_heads = shape.n_heads;
  model.n_kv_heads = shape.n_kv_heads;
  model.head_dim = shape.head_dim;
  model.ff_dim = shape.ff_dim;
  model.vocab_size = shape.vocab_size;
  model.context_length = shape.context_length;
  model.rope.n_rot = shape.head_dim;
  const int64_t q_rows = shape.n_heads * shape.head_dim;
  const int64_t kv_rows = shape.n_kv_heads * shape.head_dim;
  LayerSpec layer;
  layer.q = {shape.type, q_rows, shape.dim};
  layer.k = {shape.type, kv_rows, shape.dim};
  layer.v = {shape.type, kv_rows, shape.dim};
  layer.o = {shape.type, shape.dim, q_rows};
  layer.gate = {shape.type, shape.ff_dim, shape.dim};
  layer.up = {shape.type, shape.ff_dim, shape.dim};
  layer.down = {shape.type, shape.dim, shape.ff_dim};
  model.layers.assign(static_cast<size_t>(shape.n_layers), layer);
  model.embedding = {QuantType::kQ8_0, shape.vocab_size, shape.dim};
  if (!shape.tied) model.output = model.embedding;
  return model;
}

inline ModelSpec smollm2() {
  return model_of({"SmolLM2-135M", 30, 576, 9, 3, 64, 1536, 49152, 8192});
}

inline ModelSpec tiny_stories() {
  return model_of({"TinyStories-656K", 2, 128, 8, 4, 16, 384, 2048, 512, QuantType::kQ8_0, false});
}

// K-quants can be cut but not yet multiplied: for the tests of shard.h only.
inline ModelSpec llama_70b() {
  return model_of(
      {"Llama-70B", 80, 8192, 64, 8, 128, 28672, 128256, 131072, QuantType::kQ4_K, false});
}

inline ModelSpec llama_8b() {
  return model_of(
      {"Llama-8B", 32, 4096, 32, 8, 128, 14336, 128256, 131072, QuantType::kQ4_K, false});
}

inline ModelSpec llama_405b() {
  return model_of(
      {"Llama-405B", 126, 16384, 128, 8, 128, 53248, 128256, 131072, QuantType::kQ4_K, false});
}

// What a host must have free for a rank to take so much: it leaves a 32nd.
inline int64_t free_for(int64_t need) {
  int64_t free = need;
  while (free - free / 32 < need) free += std::max<int64_t>(1, (need - free + free / 32) / 2);
  return free;
}

// n equal measured ranks, each on a host of its own.
inline ClusterSpec measured_cluster(int n, double read_gb_per_s = 10.0) {
  ClusterSpec cluster = assumed_cluster(n);
  for (RankSpec& rank : cluster.ranks) {
    rank.host = "host" + std::to_string(rank.rank);
    rank.read_gb_per_s = read_gb_per_s;
    rank.measured = true;
  }
  cluster.link.measured = true;
  return cluster;
}

}  // namespace spillway::testing

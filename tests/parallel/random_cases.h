// Random models, clusters and requests, for tests of what holds for every plan. The same on every
// machine: raw engine values alone, since what distributions make of them differs between
// libraries.
#pragma once

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "parallel/planner.h"
#include "parallel/size_text.h"
#include "tests/parallel/made_up_gpus.h"

namespace spillway::testing {

// What cases are drawn from; a value that is written twice is drawn twice as often.
struct CaseKind {
  std::vector<Shape> shapes;
  std::vector<int64_t> layers;  // of the model; empty: the shape's
  std::vector<int> ranks;
  std::vector<double> gib;    // of a GPU; 0: none
  std::vector<double> rates;  // of a GPU, GB/s, where they are unlike
  std::vector<double> host_gib = {4, 16, 64, 256};
  bool some_alike = true;  // GPUs of half of the cases are
  bool budgets = false;    // some have --gpu-memory, --host-memory
};

struct RandomCase {
  ModelSpec model;
  ClusterSpec cluster;
  PlanRequest request;
  std::string text;
};

inline std::vector<Shape> common_shapes() {
  return {{"1B", 16, 2048, 32, 8, 64, 8192, 128256, 131072, QuantType::kQ4_K, true},
          {"8B", 32, 4096, 32, 8, 128, 14336, 128256, 131072, QuantType::kQ4_K, false},
          {"7B", 28, 3584, 28, 4, 128, 18944, 152064, 131072, QuantType::kQ4_K, false},
          {"32B", 64, 5120, 40, 8, 128, 27648, 152064, 32768, QuantType::kQ4_K, false},
          {"135M", 30, 576, 9, 3, 64, 1536, 49152, 8192, QuantType::kQ8_0, true}};
}

// Two or three unlike ranks with little memory, few layers of larger models, budgets: spills of
// every kind, and every cut can be tried.
inline CaseKind small_kind() {
  CaseKind kind;
  kind.shapes = {{"8B", 32, 4096, 32, 8, 128, 14336, 32064, 131072, QuantType::kQ4_K, false},
                 {"70B", 80, 8192, 64, 8, 128, 28672, 32064, 131072, QuantType::kQ4_K, false},
                 {"7B", 28, 3584, 28, 4, 128, 18944, 32064, 131072, QuantType::kQ4_K, false}};
  kind.layers = {4, 6, 8};
  kind.ranks = {2, 2, 3};
  kind.gib = {0, 0, 0.8, 1.2, 1.6, 2.4, 4};
  kind.rates = {333, 500, 866, 1200, 1650, 2400, 4000};
  kind.host_gib = {1, 2, 4, 8, 16};
  kind.some_alike = false;
  kind.budgets = true;
  return kind;
}

// So many unlike ranks, whole models.
inline CaseKind whole_kind(int ranks) {
  CaseKind kind = small_kind();
  kind.shapes = common_shapes();
  kind.layers.clear();
  kind.ranks = {ranks};
  kind.gib = {0, 0, 4, 8, 12, 24};
  kind.host_gib = {4, 16, 64, 256};
  return kind;
}

class CaseMaker {
 public:
  CaseMaker(CaseKind kind, uint32_t seed) : kind_(std::move(kind)), random_(seed), seed_(seed) {}

  RandomCase make() {
    RandomCase out;
    Shape shape = pick(kind_.shapes);
    if (!kind_.layers.empty()) shape.n_layers = pick(kind_.layers);
    out.model = model_of(shape);
    out.text = std::to_string(seed_) + ": " + shape.name + " of " + std::to_string(shape.n_layers) +
               " layers on";
    make_cluster(out);
    make_request(out);
    return out;
  }

 private:
  template <typename T>
  T pick(const std::vector<T>& of) {
    return of[random_() % of.size()];
  }

  void make_cluster(RandomCase& out) {
    const int n = pick(kind_.ranks);
    const int hosts = n > 1 && random_() % 3 == 0 ? 2 : 1;
    const bool alike = kind_.some_alike && random_() % 2 == 0;
    std::vector<double> gib = {pick(kind_.gib)};
    while (gib.size() < static_cast<size_t>(n)) gib.push_back(alike ? gib[0] : pick(kind_.gib));
    const double cpu = pick<double>({10, 20, 40, 80}) / n * hosts;
    const double bus = pick<double>({7, 14, 27, 52});
    const double host_gib = pick(kind_.host_gib) / n * hosts;
    std::vector<int64_t> cards;
    for (const double size : gib) cards.push_back(static_cast<int64_t>(std::ceil(size)));
    out.cluster = with_host_rates(gpus(cards), cpu, bus);
    const double delay_us = pick<double>({5, 30});
    out.cluster.link = {delay_us, pick<double>({1, 2, 10}), true};
    for (RankSpec& rank : out.cluster.ranks) {
      rank.host = rank.rank * hosts < n ? "one" : "two";
      rank.local_size = n / hosts;
      rank.memory_free_bytes = static_cast<int64_t>(host_gib * kGiB);
      rank.matrix_gop_per_s = cpu * 20;
      out.text += " " + fixed_text(gib[static_cast<size_t>(rank.rank)], 1);
      if (!rank.gpu.present()) continue;
      rank.gpu.free_bytes =
          static_cast<int64_t>(gib[static_cast<size_t>(rank.rank)] * static_cast<double>(kGiB));
      rank.gpu.read_gb_per_s = alike ? 866 : pick(kind_.rates);
      rank.gpu.matrix_tflops = rank.gpu.read_gb_per_s / 10;
      out.text += "@" + fixed_text(rank.gpu.read_gb_per_s, 0);
    }
    out.text += " GiB@GB/s, " + std::to_string(hosts) + " hosts, cpu " + fixed_text(cpu, 1) +
                " bus " + fixed_text(bus, 0) + " host GiB " + fixed_text(host_gib, 1);
  }

  void make_request(RandomCase& out) {
    PlanRequest& request = out.request;
    request.objective = static_cast<Objective>(random_() % kObjectives);
    request.choose_cpu_rows = request.choose_gpu_rows = true;
    request.gpu_rows = 2048;
    const bool many = request.objective == Objective::kThroughput;
    request.limits.max_sequences = many ? pick<int64_t>({1, 8, 32}) : 1;
    request.limits.max_logit_rows = request.limits.max_sequences;
    if (kind_.budgets && random_() % 2 == 0) {
      request.gpu_memory = {{0, pick<double>({0.5, 0.7, 0.9})}};
    }
    if (kind_.budgets && random_() % 3 == 0) {
      request.host_memory = {{0, pick<double>({0.3, 0.6})}};
    }
    if (!request.gpu_memory.empty()) {
      out.text += " gpu-memory " + budgets_text(request.gpu_memory);
    }
    if (!request.host_memory.empty()) {
      out.text += " host-memory " + budgets_text(request.host_memory);
    }
    out.text += ", " + std::to_string(request.limits.max_sequences) + " sequences, " +
                objective_name(request.objective);
  }

  const CaseKind kind_;
  std::mt19937 random_;
  uint32_t seed_;
};

}  // namespace spillway::testing

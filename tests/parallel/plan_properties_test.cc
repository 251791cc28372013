// What holds for plans of any machines: random clusters, each planned again with one thing changed.
// No plan is beyond what memory and buses allow, none is worse with more or faster hardware, none
// depends on the names of equal machines, and every plan that is written down comes back.
// Probes scatter, so a plan is taken only when it is 2 % better: nothing here is finer than that.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <random>

#include "kernels/core/error.h"
#include "parallel/cost.h"
#include "parallel/pins.h"
#include "parallel/planner.h"
#include "parallel/search.h"
#include "parallel/shortage.h"
#include "tests/parallel/gpu_clusters.h"

namespace spillway {
namespace {

using testing::kGiB;
using testing::with_host_rates;

// A plan may be as much worse as the search disdains, and rounding.
constexpr double kWorse = 1.025;
// Whole halves are spilled: of the longest context some pages hang on which.
constexpr double kShorter = 0.98;

struct Case {
  ModelSpec model;
  ClusterSpec cluster;
  PlanRequest request;
  std::string text;

  // Raw engine values alone: what distributions make of them differs between libraries.
  static Case of(uint32_t seed) {
    std::mt19937 random(seed);
    const auto pick = [&random](std::initializer_list<double> of) {
      return *(of.begin() + static_cast<int64_t>(random() % of.size()));
    };
    const testing::Shape shapes[] = {
        {"1B", 16, 2048, 32, 8, 64, 8192, 128256, 131072, QuantType::kQ4_K, true},
        {"8B", 32, 4096, 32, 8, 128, 14336, 128256, 131072, QuantType::kQ4_K, false},
        {"7B", 28, 3584, 28, 4, 128, 18944, 152064, 131072, QuantType::kQ4_K, false},
        {"32B", 64, 5120, 40, 8, 128, 27648, 152064, 32768, QuantType::kQ4_K, false},
        {"135M", 30, 576, 9, 3, 64, 1536, 49152, 8192, QuantType::kQ8_0, true}};
    Case out;
    out.model = testing::model_of(shapes[random() % std::size(shapes)]);
    const int n = static_cast<int>(pick({1, 1, 2, 2, 3, 4}));
    const int hosts = n > 1 && random() % 3 == 0 ? 2 : 1;
    std::vector<int64_t> gib;
    const bool alike = random() % 2 == 0;
    const auto size = [&] { return static_cast<int64_t>(pick({0, 2, 4, 8, 12, 24})); };
    const int64_t first = size();
    for (int r = 0; r < n; ++r) gib.push_back(alike ? first : size());
    const double cpu = pick({10, 20, 40, 80}) / n * hosts;
    const double bus = pick({7, 14, 27, 52});
    const double host_gib = pick({4, 16, 64, 256}) / n * hosts;
    out.cluster = with_host_rates(testing::gpus(gib), cpu, bus);
    out.cluster.link = {pick({5, 30}), pick({1, 2, 10}), true};
    for (RankSpec& rank : out.cluster.ranks) {
      rank.host = rank.rank * hosts < n ? "one" : "two";
      rank.local_size = n / hosts;
      rank.memory_free_bytes = static_cast<int64_t>(host_gib * kGiB);
      rank.matrix_gop_per_s = cpu * 20;
      if (!rank.gpu.present()) continue;
      rank.gpu.read_gb_per_s = alike ? 866 : pick({333, 866, 1650, 4000});
      rank.gpu.matrix_tflops = rank.gpu.read_gb_per_s / 10;
    }
    out.request.objective = static_cast<Objective>(random() % kObjectives);
    out.request.choose_cpu_rows = out.request.choose_gpu_rows = true;
    out.request.gpu_rows = 2048;
    const bool many = out.request.objective == Objective::kThroughput;
    out.request.limits.max_sequences = many ? static_cast<int64_t>(pick({1, 8, 32})) : 1;
    out.request.limits.max_logit_rows = out.request.limits.max_sequences;
    out.text = std::to_string(seed) + ": " + out.model.name + " on " + std::to_string(n) +
               " ranks of " + std::to_string(hosts) + " hosts, GiB";
    for (const int64_t one : gib) out.text += " " + std::to_string(one);
    out.text += std::string(", ") + objective_name(out.request.objective);
    return out;
  }

  Plan plan() const { return make_plan(model, cluster, request); }
};

std::string text_of(const Plan& plan) {
  const Prediction& p = plan.prediction;
  return plan_title(plan) + ", " + spill_text(plan) + ": decode " +
         std::to_string(p.decode_tok_per_s) + ", prefill " + std::to_string(p.prefill_tok_per_s) +
         ", together " + std::to_string(p.sequences_tok_per_s) + ", context " +
         std::to_string(plan.kv.context);
}

// With something changed for the better.
void expect_not_worse(const Case& before, const Plan& plan, const char* what,
                      const std::function<void(ClusterSpec&)>& change) {
  Case after = before;
  change(after.cluster);
  try {
    const Plan other = after.plan();
    const auto longest = static_cast<double>(plan.kv.context);
    if (before.request.objective == Objective::kContext) {
      EXPECT_GE(static_cast<double>(other.kv.context), longest * kShorter) << what << "\n"
                                                                           << text_of(plan) << "\n"
                                                                           << text_of(other);
      return;
    }
    EXPECT_LE(plan_score(other, before.request.objective),
              plan_score(plan, before.request.objective) * kWorse)
        << what << "\n"
        << text_of(plan) << "\n"
        << text_of(other);
  } catch (const Error& error) {
    ADD_FAILURE() << what << ": " << error.what();
  }
}

// No rank reads its weights faster than all of its memories and buses together.
void expect_below_the_ceiling(const Case& of, const Plan& plan) {
  double bytes = 0;
  double gb_per_s = 0;
  for (const RankPart& part : plan.parts) {
    const RankSpec& rank = of.cluster.ranks[static_cast<size_t>(part.rank)];
    bytes += static_cast<double>(weight_bytes_per_token(plan, of.model, part.rank) +
                                 plan.rank_bytes(part.rank, "weights", "disk"));
    if (part.gpu) bytes += static_cast<double>(plan.rank_bytes(part.rank, "weights", "host"));
    gb_per_s += (part.gpu ? rank.gpu.read_gb_per_s : 0) + rank.read_gb_per_s;
  }
  EXPECT_LE(plan.prediction.decode_tok_per_s, gb_per_s * 1e9 / bytes) << text_of(plan);
}

void expect_within_memory(const Case& of, const Plan& plan) {
  EXPECT_EQ(check_plan(plan, of.model), std::vector<std::string>{});
  EXPECT_LE(shortage(plan).bytes, 0) << text_of(plan);
  for (const RankPart& part : plan.parts) {
    const RankSpec& rank = of.cluster.ranks[static_cast<size_t>(part.rank)];
    EXPECT_LE(plan.rank_bytes(part.rank, "", "gpu"), rank.gpu.free_bytes);
    EXPECT_LE(plan.rank_bytes(part.rank, "", "host"), rank.memory_free_bytes);
  }
}

void expect_read_back(const Case& of, const Plan& plan) {
  Case again = of;
  again.request = pins_of(plan);
  again.request.limits = of.request.limits;
  again.request.choose_cpu_rows = true;
  again.request.split = parse_split(split_text(again.request.split));
  std::string places = "layers all = resident";
  if (!again.request.places.empty()) places += "; " + places_text(again.request.places);
  again.request.places = parse_places(places);
  const Plan back = again.plan();
  EXPECT_EQ(plan_fingerprint(back), plan_fingerprint(plan)) << text_of(plan) << "\n"
                                                            << text_of(back);
}

void swap_ranks(ClusterSpec& cluster, size_t a, size_t b) {
  std::swap(cluster.ranks[a], cluster.ranks[b]);
  std::swap(cluster.ranks[a].rank, cluster.ranks[b].rank);
}

void check_case(const Case& of) {
  const Planned planned = plan_and_others(of.model, of.cluster, of.request);
  const Plan& plan = planned.plan;
  expect_within_memory(of, plan);
  expect_below_the_ceiling(of, plan);
  expect_read_back(of, plan);
  for (const Plan& other : planned.others) EXPECT_LE(shortage(other).bytes, 0);
  expect_not_worse(of, plan, "half a GiB more on every GPU", [](ClusterSpec& cluster) {
    for (RankSpec& rank : cluster.ranks) {
      if (rank.gpu.present()) rank.gpu.free_bytes += kGiB / 2;
    }
  });
  expect_not_worse(of, plan, "a GiB more of host memory", [](ClusterSpec& cluster) {
    for (RankSpec& rank : cluster.ranks) rank.memory_free_bytes += kGiB;
  });
  expect_not_worse(of, plan, "faster GPUs", [](ClusterSpec& cluster) {
    for (RankSpec& rank : cluster.ranks) {
      rank.gpu.read_gb_per_s *= 1.25;
      rank.gpu.matrix_tflops *= 1.25;
    }
  });
  expect_not_worse(of, plan, "faster hosts and buses", [](ClusterSpec& cluster) {
    for (RankSpec& rank : cluster.ranks) {
      rank =
          with_host_rates({{rank}, {}, {}}, rank.read_gb_per_s * 1.3, rank.gpu.h2d_gb_per_s * 1.3)
              .ranks[0];
    }
  });
}

TEST(PlanProperties, HoldForRandomClusters) {
  int planned = 0;
  for (uint32_t seed = 0; seed < 40; ++seed) {
    const Case one = Case::of(seed);
    SCOPED_TRACE(one.text);
    try {
      check_case(one);
      ++planned;
    } catch (const Error&) {
      continue;  // too little memory
    }
  }
  EXPECT_GT(planned, 25);
}

// Rank 0 leads, the others may be told in any order.
TEST(PlanProperties, EqualMachinesMayBeNamedInAnyOrder) {
  for (const int64_t host_gib : {4, 256}) {
    Case one = Case::of(0);
    one.model = testing::llama_70b();
    one.request = PlanRequest();
    one.cluster = with_host_rates(testing::gpus({24, 24, 12, 0}), 20, 27);
    for (RankSpec& rank : one.cluster.ranks) rank.memory_free_bytes = host_gib * kGiB;
    const double ms = one.plan().prediction.total_ms;
    for (const auto& [a, b] : {std::pair{1, 2}, std::pair{1, 3}, std::pair{2, 3}}) {
      Case other = one;
      swap_ranks(other.cluster, static_cast<size_t>(a), static_cast<size_t>(b));
      EXPECT_NEAR(other.plan().prediction.total_ms, ms, 0.02 * ms) << a << " and " << b;
    }
  }
}

}  // namespace
}  // namespace spillway

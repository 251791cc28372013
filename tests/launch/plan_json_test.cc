// `plan --json`: what it says of devices, in its own words.
#include "launch/plan_json.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "parallel/planner.h"
#include "tests/parallel/model_shapes.h"

namespace spillway::testing {
namespace {

TEST(PlanJsonTest, SaysWhereARankComputesAndWhatItsGpuIs) {
  const ModelSpec model = smollm2();
  ClusterSpec cluster = measured_cluster(1);
  const auto of = [&] {
    const Plan plan = make_plan(model, cluster, {});
    return nlohmann::json::parse(plan_json(plan, model, cluster).dump())["ranks"][0];
  };
  const nlohmann::json cpu = of();
  EXPECT_EQ(cpu["device"], "cpu");
  EXPECT_TRUE(cpu["gpu"].is_null());
  EXPECT_EQ(cpu["bytes"]["places"]["gpu"], 0);
  EXPECT_EQ(cpu["bytes"]["places"]["host"], cpu["bytes"]["total"]);

  cluster.ranks[0].gpu = {"Made Up",         "GPU-1",           3,      9,     1, 132,
                          int64_t{80} << 30, int64_t{79} << 30, 3000.5, 450.25};
  const nlohmann::json gpu = of();
  EXPECT_EQ(gpu["device"], "gpu");
  const nlohmann::json expected = {{"name", "Made Up"},
                                   {"uuid", "GPU-1"},
                                   {"ordinal", 3},
                                   {"major", 9},
                                   {"minor", 1},
                                   {"multiprocessors", 132},
                                   {"total_bytes", 85899345920},
                                   {"free_bytes", 84825604096},
                                   {"read_gb_per_s", 3000.5},
                                   {"matrix_tflops", 450.25}};
  EXPECT_EQ(gpu["gpu"], expected);
  const nlohmann::json& places = gpu["bytes"]["places"];
  EXPECT_GT(places["gpu"].get<int64_t>(), 0);
  EXPECT_EQ(places["gpu"].get<int64_t>() + places["host"].get<int64_t>(), gpu["bytes"]["total"]);
}

}  // namespace
}  // namespace spillway::testing

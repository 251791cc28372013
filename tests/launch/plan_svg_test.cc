// The drawing of a plan: well formed, a block for every half, bars to scale.
#include "launch/plan_svg.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "kernels/core/error.h"
#include "parallel/planner.h"
#include "tests/parallel/made_up_gpus.h"
#include "tests/parallel/refusal.h"

namespace spillway::testing {
namespace {

size_t count(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

TEST(PlanSvg, HasABlockForEveryHalfAndNamesWhatLiesWhere) {
  const ClusterSpec cluster = with_host_rates(gpus({80}));
  PlanRequest request;
  request.gpu_memory = parse_budgets("--gpu-memory", "3GiB");
  request.places = parse_places("layers 0-3 ffn = cpu; layers 4-31 ffn = hybrid 0.5");
  ModelSpec model = llama_8b();
  model.name = "a <model> & \"more\"";
  const std::string svg = plan_svg(make_plan(model, cluster, request), model, cluster);
  EXPECT_EQ(count(svg, "<rect"), count(svg, "</rect>") + 1);  // the background has no title
  EXPECT_EQ(count(svg, "<text"), count(svg, "</text>"));
  EXPECT_EQ(count(svg, " attention: "), 32u);
  EXPECT_EQ(count(svg, "#dd6b20"), 4u + 1u);  // and the legend
  EXPECT_EQ(count(svg, "#e2a06b"), 28u + 1u);
  expect_says(svg, {"a &lt;model&gt; &amp; &quot;more&quot;: TP1", "rank 0 GPU", "rank 0 host",
                    " of 3.00 GiB", "free: "});
}

TEST(PlanSvg, SaysWhichBudgetWasCut) {
  const ClusterSpec cluster = gpus({80});
  PlanRequest request;
  request.gpu_memory = parse_budgets("--gpu-memory", "84GiB");
  expect_says(plan_svg(make_plan(smollm2(), cluster, request), smollm2(), cluster),
              {"--gpu-memory: 84.00 GiB asked for, the budget is 80.00 GiB", " of 80.00 GiB"});
}

TEST(PlanSvg, AFileThatCannotBeWrittenIsAnError) {
  const ClusterSpec cluster = gpus({80});
  const Plan plan = make_plan(smollm2(), cluster, {});
  EXPECT_THROW(write_plan_svg("/nowhere/plan.svg", plan, smollm2(), cluster), Error);
}

}  // namespace
}  // namespace spillway::testing

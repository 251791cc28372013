// The drawing of a plan: well formed, a block for every half, bars to scale.
#include "launch/plan_svg.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

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

// The white numbers of a drawing's bars, bar by bar: where they begin and what they say.
std::vector<std::vector<std::pair<double, std::string>>> layer_numbers(const std::string& svg) {
  std::vector<std::vector<std::pair<double, std::string>>> bars;
  std::string y_before;
  for (size_t at = svg.find("<text"); at != std::string::npos; at = svg.find("<text", at + 1)) {
    const std::string text = svg.substr(at, svg.find("</text>", at) - at);
    if (text.find("#ffffff") == std::string::npos) continue;
    const auto value = [&](const std::string& name) {
      const size_t begin = text.find(name + "=\"") + name.size() + 2;
      return text.substr(begin, text.find('"', begin) - begin);
    };
    const std::string number = text.substr(text.find('>') + 1);
    if (value("y") != y_before) bars.emplace_back();
    y_before = value("y");
    const double width = 5.5 * static_cast<double>(number.size());
    const bool middle = value("text-anchor") == "middle";
    bars.back().emplace_back(std::stod(value(" x")) - (middle ? width / 2 : 0), number);
  }
  return bars;
}

TEST(PlanSvg, LayerNumbersAreRegularAndDoNotTouch) {
  const ClusterSpec cluster = with_host_rates(gpus({80, 80}));
  for (const char* places :
       {"layers 0-79 = resident", "layers 3-77 ffn = cpu", "layers all = streamed",
        "layers 1 ffn = cpu; layers 20 ffn = cpu; layers 66 ffn = cpu"}) {
    SCOPED_TRACE(places);
    PlanRequest request;
    request.places = parse_places(places);
    const ModelSpec model = llama_70b();
    const std::string svg = plan_svg(make_plan(model, cluster, request), model, cluster);
    const auto bars = layer_numbers(svg);
    ASSERT_GE(bars.size(), 2u);
    for (const auto& bar : bars) {
      for (size_t i = 1; i < bar.size(); ++i) {
        EXPECT_GE(bar[i].first, bar[i - 1].first + 11) << bar[i].second;
      }
      // No step but one: 0 5 10, not 0 5 6 7 20.
      for (size_t i = 2; i < bar.size() && bar.size() > 3; ++i) {
        EXPECT_EQ(std::stoi(bar[i].second) - std::stoi(bar[i - 1].second),
                  std::stoi(bar[i - 1].second) - std::stoi(bar[i - 2].second));
      }
    }
  }
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

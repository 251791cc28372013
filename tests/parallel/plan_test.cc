// Plans as data: the check finds every broken invariant, the fingerprint sees every field that
// counts, title and table say what is in the plan.
#include "parallel/plan.h"

#include <gtest/gtest.h>

#include <functional>
#include <sstream>

#include "parallel/planner.h"
#include "tests/parallel/model_shapes.h"

namespace spillway {
namespace {

using testing::measured_cluster;
using testing::smollm2;
using testing::tiny_stories;

Plan plan_of(const ModelSpec& model, const std::string& split) {
  PlanRequest request;
  request.split = parse_split(split);
  request.context = 256;
  int ranks = 0;
  for (const StagePin& pin : request.split) ranks += static_cast<int>(pin.shares.size());
  return make_plan(model, measured_cluster(ranks), request);
}

using Change = std::function<void(Plan&)>;

TEST(CheckPlan, FindsEveryBreak) {
  const ModelSpec model = smollm2();
  const Plan sound = plan_of(model, "2:1+1");
  ASSERT_TRUE(check_plan(sound, model).empty());
  const std::pair<const char*, Change> breaks[] = {
      {"begins at layer", [](Plan& p) { p.stages[1].layers.begin += 1; }},
      {"stages end at layer", [](Plan& p) { p.stages[1].layers.end -= 1; }},
      {"no layers", [](Plan& p) { p.stages[0].layers.end = 0; }},
      {"has no ranks", [](Plan& p) { p.stages[1].ranks.clear(); }},
      {"shares for", [](Plan& p) { p.stages[0].shares.pop_back(); }},
      {"add up to 1", [](Plan& p) { p.stages[0].shares[0] += 0.1; }},
      {"above 0",
       [](Plan& p) {
         p.stages[0].shares = {1.5, -0.5};
       }},
      {"the plan has", [](Plan& p) { p.parts.pop_back(); }},
      {"is of rank", [](Plan& p) { p.parts[1].rank = 2; }},
      {"does not exist", [](Plan& p) { p.parts[2].stage = 5; }},
      {"of its stage", [](Plan& p) { std::swap(p.parts[0].tp_index, p.parts[1].tp_index); }},
      {"of its stage", [](Plan& p) { p.parts[0].tp_index = -1; }},
      {"layers, its stage", [](Plan& p) { p.parts[0].layers.pop_back(); }},
      {"do not hold a context", [](Plan& p) { p.kv.n_pages = 1; }},
      {"limit of the step", [](Plan& p) { p.limits.max_rows = 0; }},
      {"ledger line", [](Plan& p) { p.ledger[0].rank = 9; }},
      {"ledger line", [](Plan& p) { p.ledger[0].bytes = -1; }},
      {"heads", [](Plan& p) { p.parts[0].layers[4].heads.end -= 3; }},
      {"heads", [](Plan& p) { p.parts[1].layers[4].heads.begin -= 1; }},
      {"KV heads", [](Plan& p) { p.parts[0].layers[4].kv_heads.end -= 1; }},
      {"ff columns", [](Plan& p) { p.parts[0].layers[2].ff.end += 16; }},
      {"ff columns are covered", [](Plan& p) { p.parts[1].layers[2].ff.end -= 32; }},
      {"embedding rows", [](Plan& p) { p.parts[0].embedding_rows.end -= 16; }},
      {"embedding rows",
       [](Plan& p) {
         p.parts[2].embedding_rows = {0, 16};
       }},
      {"output rows", [](Plan& p) { p.parts[2].output_rows = {}; }},
  };
  for (const auto& [sentence, change] : breaks) {
    Plan broken = sound;
    change(broken);
    bool found = false;
    std::string all;
    for (const std::string& fault : check_plan(broken, model)) {
      found = found || fault.find(sentence) != std::string::npos;
      all += fault + "; ";
    }
    EXPECT_TRUE(found) << sentence << " in: " << all;
  }
}

TEST(CheckPlan, CutsInsideAQuantBlock) {
  const ModelSpec model = smollm2();
  Plan plan = plan_of(model, "1:1");
  plan.parts[0].layers[0].ff.end += 8;
  plan.parts[1].layers[0].ff.begin += 8;
  const auto faults = check_plan(plan, model);
  ASSERT_EQ(faults.size(), 1u);
  EXPECT_NE(faults[0].find("multiple of 32"), std::string::npos) << faults[0];
}

TEST(CheckPlan, TiedEmbeddingAndOutputMustAgree) {
  const ModelSpec model = smollm2();
  Plan plan = plan_of(model, "1:1");
  plan.parts[0].output_rows.end += 16;
  plan.parts[1].output_rows.begin += 16;
  EXPECT_EQ(check_plan(plan, model).size(), 2u);  // both ranks
}

TEST(CheckPlan, EmptyPlanAndWrongModel) {
  EXPECT_FALSE(check_plan(Plan{}, smollm2()).empty());
  EXPECT_FALSE(check_plan(plan_of(smollm2(), "1"), tiny_stories()).empty());
}

TEST(Fingerprint, SeesEveryFieldThatCountsAndNotThePrediction) {
  const Plan plan = plan_of(smollm2(), "2:1+1");
  const uint64_t print = plan_fingerprint(plan);
  const Change changes[] = {
      [](Plan& p) { p.model_name += "x"; },
      [](Plan& p) { p.header_hash ^= 1; },
      [](Plan& p) { p.stages[0].layers.end += 1; },
      [](Plan& p) { std::swap(p.stages[0].ranks[0], p.stages[0].ranks[1]); },
      [](Plan& p) { p.stages[0].shares[0] += 1e-15; },
      [](Plan& p) { p.parts[0].stage = 1; },
      [](Plan& p) { p.parts[0].tp_index = 1; },
      [](Plan& p) { p.parts[1].layers[3].heads.begin += 1; },
      [](Plan& p) { p.parts[1].layers[3].kv_heads.end += 1; },
      [](Plan& p) { p.parts[1].layers[3].ff.end += 1; },
      [](Plan& p) { p.parts[0].embedding_rows.end += 1; },
      [](Plan& p) { p.parts[2].output_rows.end += 1; },
      [](Plan& p) { p.parts[2].gpu = true; },
      [](Plan& p) { p.limits.max_rows += 1; },
      [](Plan& p) { p.limits.max_sequences += 1; },
      [](Plan& p) { p.limits.max_logit_rows += 1; },
      [](Plan& p) { p.limits.max_candidates += 1; },
      [](Plan& p) { p.limits.max_wanted += 1; },
      [](Plan& p) { p.limits.all_logits = true; },
      [](Plan& p) { p.kv.type = KvType::kF32; },
      [](Plan& p) { p.kv.page_tokens += 1; },
      [](Plan& p) { p.kv.n_pages += 1; },
      [](Plan& p) { p.kv.context += 1; },
      [](Plan& p) { p.ledger[2].bytes += 1; },
      [](Plan& p) { p.ledger[2].detail += "x"; },
      [](Plan& p) { p.ledger.pop_back(); },
  };
  int index = 0;
  for (const Change& change : changes) {
    Plan other = plan;
    change(other);
    EXPECT_NE(plan_fingerprint(other), print) << "change " << index;
    ++index;
  }
  Plan other = plan;
  other.prediction.total_ms += 1;
  EXPECT_EQ(plan_fingerprint(other), print);
}

TEST(PlanTitle, Forms) {
  EXPECT_EQ(plan_title(plan_of(smollm2(), "1")), "TP1");
  EXPECT_EQ(plan_title(plan_of(smollm2(), "1:1:1")), "TP3");
  EXPECT_EQ(plan_title(plan_of(smollm2(), "2:1")), "TP2 (2:1)");
  EXPECT_EQ(plan_title(plan_of(smollm2(), "2:1+2:1")), "TP2 (2:1) x PP2, layers 15+15");
  EXPECT_EQ(plan_title(plan_of(smollm2(), "10@3:2+20@1:1")), "TP2 (3:2) + TP2, layers 10+20");
  EXPECT_EQ(plan_title(plan_of(smollm2(), "0.123:1")), "TP2 (11:89 %)");
  EXPECT_EQ(plan_title(Plan{}), "no stages");
}

TEST(PlanTable, FitsATerminalAndNamesEveryRank) {
  const ModelSpec model = smollm2();
  const Plan plan = plan_of(model, "2:1+1:1+1");
  ClusterSpec cluster = measured_cluster(5);
  cluster.ranks[3].host = "a-host-with-a-very-long-name.example.org";
  const std::string table = plan_table(plan, model, cluster);
  std::istringstream lines(table);
  std::string line;
  int rows = 0;
  while (std::getline(lines, line)) {
    EXPECT_LE(line.size(), 100u) << line;
    rows += line.find(" 7936.00") != std::string::npos ? 1 : 0;
  }
  EXPECT_EQ(rows, 5) << table;  // of the 8 GiB that are free on each a 32nd is left
  for (const char* part : {"SmolLM2-135M", "TP2 (2:1)", "context 256", "f16", "host0", "a-host-wi~",
                           "sizes in MiB", "stage", "weights", "tok/s", "measured", "ms a token"}) {
    EXPECT_NE(table.find(part), std::string::npos) << part << " in\n" << table;
  }
  cluster.link.measured = false;
  Plan assumed = plan;
  assumed.prediction.measured_cluster = false;
  EXPECT_NE(plan_table(assumed, model, cluster).find("assumed"), std::string::npos);
}

TEST(RankBytes, SumsByRankAndName) {
  Plan plan;
  plan.ledger = {
      {0, "host", "weights", "a", 5}, {0, "host", "kv", "b", 7}, {1, "host", "weights", "a", 11}};
  EXPECT_EQ(plan.rank_bytes(0), 12);
  EXPECT_EQ(plan.rank_bytes(0, "kv"), 7);
  EXPECT_EQ(plan.rank_bytes(1, "kv"), 0);
  EXPECT_EQ(plan.rank_bytes(2), 0);
  plan.ledger.push_back({0, "gpu", "kv", "b", 100});
  EXPECT_EQ(plan.rank_bytes(0), 112);
  EXPECT_EQ(plan.rank_bytes(0, "kv", "gpu"), 100);
  EXPECT_EQ(plan.rank_bytes(0, "", "host"), 12);
}

}  // namespace
}  // namespace spillway

// Weights on disk give the bits of weights in memory, in every split and mixture, and are taken
// exactly once a step.
#include "runtime/stage/disk_weights.h"

#include <gtest/gtest.h>

#include "tests/support/tiny_job.h"

namespace spillway::testing {
namespace {

TinyOptions five_layers() {
  TinyOptions options;
  options.n_layers = 5;
  options.heads = 6;
  options.kv_heads = 3;
  options.head_dim = 32;
  options.ff = 160;
  options.vocab = 75;
  options.biases = true;
  options.type = QuantType::kQ8_0;
  return options;
}

class DiskWeightsTest : public ::testing::TestWithParam<const char*> {};

TEST_P(DiskWeightsTest, BitsOfMemory) {
  const TinyJob job(five_layers());
  const std::vector<int32_t> tokens = tiny_tokens(37, 75);
  const auto expected = job.logits(job.plan(tiny_request()), tokens);
  for (const char* split : {"1", "1:1", "3@2:1+2@1"}) {
    SCOPED_TRACE(split);
    PlanRequest request = tiny_request(parse_split(split));
    request.places = parse_places(GetParam());
    const Plan plan = job.plan(request);
    EXPECT_GT(plan.rank_bytes(0, "weights", "disk") +
                  plan.rank_bytes(plan.n_ranks() - 1, "weights", "disk"),
              0);
    EXPECT_EQ(job.logits(plan, tokens, 5, 2), expected);
  }
}

INSTANTIATE_TEST_SUITE_P(All, DiskWeightsTest,
                         ::testing::Values("layers all = disk", "layers all ffn = disk",
                                           "layers 1-3 attn = disk; layer 4 = disk",
                                           "layer 0 ffn = disk"));

TEST(DiskWeights, MemoryIsTheLedgers) {
  const TinyJob job(five_layers());
  PlanRequest request = tiny_request();
  const Plan resident = job.plan(request);
  request.places = parse_places("layers all = disk");
  const Plan plan = job.plan(request);
  const auto memory = [](const Plan& p) {
    return p.rank_bytes(0, "", "host") - p.rank_bytes(0, "program", "host");
  };
  EXPECT_LT(plan.rank_bytes(0, "weights", "host"), resident.rank_bytes(0, "weights", "host"));
  job.run(plan, [&](TinyRank& rank) { EXPECT_EQ(rank.pipeline.arena_bytes(), memory(plan)); });
}

}  // namespace
}  // namespace spillway::testing

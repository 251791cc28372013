// The step of the whole job out of its ranks' times, and the words of --profile.
#include "launch/profile.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace spillway::testing {
namespace {

StepProfile::Rank rank(double matrix, double collective, double hop, double gap, double wait,
                       double host, double total) {
  StepProfile::Rank out;
  out.traced = true;
  out.times.ms = {matrix, 0, collective, hop, 0, gap, wait, host};  // and no spilled weights
  out.times.total_ms = total;
  return out;
}

// Two ranks, then two: TP2 x PP2. A step lasts 10 ms: 3 + 1 + 0.5 in the first stage, 2 + 0.5 +
// 0.25 in the second, 0.25 on the front's host; 2.5 ms are left for hops.
StepProfile made_decode() {
  StepProfile decode;
  decode.steps = 16;
  decode.timed_ms = 9;
  decode.ranks = {rank(3, 1, 0.5, 0, 5.25, 0.25, 10), rank(2, 2, 0.5, 0, 5.5, 0, 10),
                  rank(2, 0.5, 0.25, 0, 7.25, 0, 10), rank(1, 1.5, 0.25, 0, 7.25, 0, 10)};
  return decode;
}

Plan made_plan() {
  Plan plan;
  plan.stages = {{{0, 1}, {0, 1}, {}, {}}, {{1, 2}, {2, 3}, {}, {}}};
  return plan;
}

TEST(Profile, StagesAddUpAndHopsHaveTheRest) {
  const std::array<double, kTerms> job = job_terms(made_decode(), made_plan());
  const std::array<double, kTerms> wanted = {5, 0, 1.5, 0.75 + 2.5, 0, 0, 0, 0.25, 0, 0, 0};
  for (size_t i = 0; i < kTerms; ++i) {
    EXPECT_DOUBLE_EQ(job[i], wanted[i]) << term_name(static_cast<Term>(i));
  }
}

TEST(Profile, TheTermThatIsFurthestOff) {
  std::array<double, kTerms> job = job_terms(made_decode(), made_plan());
  Prediction p;
  p.matrix_ms = 5.5;
  p.collective_ms = 1.5;
  p.hop_ms = 3;
  const auto worst = [&] { return std::string(furthest_off(compared_terms(job, p)).name); };
  EXPECT_EQ(worst(), "matrix");
  p.matrix_ms = 5.1;
  p.hop_ms = 3.2;
  EXPECT_EQ(worst(), "launch");  // 0.25 of the host's, which nobody predicted
  p.launch_ms = 0.25;
  p.hop_ms = 3;
  EXPECT_EQ(worst(), "hop");
  p.attention_ms = 1;
  EXPECT_EQ(worst(), "attention");
  p.bus_ms = 2;
  EXPECT_EQ(worst(), "bus");
  job[static_cast<size_t>(Term::kBus)] = 1.5;
  job[static_cast<size_t>(Term::kCpu)] = 3;
  EXPECT_EQ(worst(), "cpu");
  // Both at once: which of them ended last says nothing, that they took as long does.
  p.cpu_ms = 4.4;
  p.bus_ms = 0;
  EXPECT_EQ(worst(), "attention");
}

// The receiver's kernel spins for rows while the first stage works: that is no time of the hop's.
TEST(Profile, AHopDoesNotLastAsLongAsTheStageBefore) {
  StepProfile decode = made_decode();
  for (auto& rank : decode.ranks) rank.times[Term::kHop] = 6;
  EXPECT_DOUBLE_EQ(job_terms(decode, made_plan())[static_cast<size_t>(Term::kHop)], 3.25);
}

TEST(Profile, SaysWhenDecodeIsFarOff) {
  EXPECT_EQ(far_off_text(100, 100), "");
  EXPECT_EQ(far_off_text(86, 100), "");
  EXPECT_EQ(far_off_text(114, 100), "");
  EXPECT_EQ(far_off_text(50, 0), "");  // nothing was predicted
  EXPECT_NE(far_off_text(80, 100).find("20 % slower than predicted"), std::string::npos);
  EXPECT_NE(far_off_text(130, 100).find("30 % faster than predicted"), std::string::npos);
}

Profile made_profile() {
  Profile profile;
  profile.decode = made_decode();
  profile.decode.ranks[1].times.unknown = "stranger";
  profile.decode.ranks.push_back({});
  profile.predicted.matrix_ms = 4;
  profile.predicted.total_ms = 4;
  profile.comparable = true;
  profile.job = job_terms(profile.decode, made_plan());
  return profile;
}

TEST(Profile, Text) {
  const std::string text = profile_text(made_profile());
  for (const char* part :
       {"a decode step, mean of 16", "collective", "3.000 30.0%", "rank 1: the kernel stranger",
        "    4  not in the plan", "traced it lasts 10.000 ms, untraced 9.000",
        " hop            0.000     3.250\n", " launch         0.000     0.250\n",
        " all            4.000    10.000\n", "furthest off: hop"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " in\n" << text;
  }
  // What nobody predicted and nobody had.
  for (const char* part : {"prefill", "attention", "bus", "disk"}) {
    EXPECT_EQ(text.find(part), std::string::npos) << part << " in\n" << text;
  }
  Profile none;
  none.obstacle = "rank 1: no CUPTI";
  EXPECT_EQ(profile_text(none), "\nno profile: rank 1: no CUPTI\n");
}

TEST(Profile, Json) {
  const nlohmann::ordered_json json = profile_json(made_profile());
  EXPECT_EQ(json["decode"]["ranks"].size(), 5U);
  EXPECT_EQ(json["decode"]["ranks"][2]["collective_ms"], 0.5);
  EXPECT_EQ(json["decode"]["ranks"][4]["traced"], false);
  EXPECT_EQ(json["measured"]["matrix_ms"], 5);
  EXPECT_EQ(json["predicted"]["matrix_ms"], 4);
  EXPECT_EQ(json["measured"]["launch_ms"], 0.25);
  EXPECT_EQ(json["predicted"]["bus_ms"], 0);
  EXPECT_EQ(json["furthest_off"], "hop");
  EXPECT_FALSE(json.contains("prefill"));
}

}  // namespace
}  // namespace spillway::testing

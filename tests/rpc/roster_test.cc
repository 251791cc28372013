// The coordinator's book with the time in the test's hands: exact sentences, exact limits.
#include "rpc/roster.h"

#include <gtest/gtest.h>

#include "rpc/protocol.h"
#include "tests/rpc/test_job.h"

namespace spillway {
namespace {

using testing::has;
using testing::milliseconds;
using testing::running;
using testing::sample_plan;

const Roster::Time kStart{std::chrono::hours(1)};

RankSpec spec_of(int rank) {
  RankSpec spec;
  spec.rank = rank;
  spec.host = "h" + std::to_string(rank);
  spec.pid = 10 + rank;
  spec.cpu = "EPYC";
  spec.isa = "avx2";
  return spec;
}

Roster full_roster(int n_ranks) {
  Roster roster(n_ranks);
  for (int rank = 0; rank < n_ranks; ++rank) {
    EXPECT_EQ(roster.admit(spec_of(rank), 1, kProtocol, kStart).reason, "");
  }
  roster.assign(sample_plan(n_ranks), kStart);
  return roster;
}

TEST(Roster, AnotherProtocolIsFatalAndNamesBoth) {
  Roster roster(2);
  const Roster::Admission admission = roster.admit(spec_of(1), 1, kProtocol + 1, kStart);
  EXPECT_TRUE(admission.fatal);
  EXPECT_TRUE(has(admission.reason,
                  "rank 1 (host h1, pid 11) speaks protocol " + std::to_string(kProtocol + 1)))
      << admission.reason;
  EXPECT_TRUE(has(admission.reason, "same build"));
  EXPECT_TRUE(roster.rows(kStart).empty());
}

TEST(Roster, TheHashOfTheFirstRankCounts) {
  Roster roster(3);
  EXPECT_EQ(roster.admit(spec_of(2), 5, kProtocol, kStart).reason, "");
  const Roster::Admission admission = roster.admit(spec_of(0), 6, kProtocol, kStart);
  EXPECT_TRUE(admission.fatal);
  EXPECT_TRUE(has(admission.reason, "headers 0000000000000006 and 0000000000000005"))
      << admission.reason;
  EXPECT_FALSE(roster.all_joined());
}

TEST(Roster, MissingRanksReadWell) {
  Roster roster(4);
  EXPECT_EQ(roster.missing(milliseconds(5000)),
            "ranks 0, 1, 2 and 3 have not joined within 5.0 s (0 of 4 are here)");
  for (const int rank : {0, 2}) roster.admit(spec_of(rank), 1, kProtocol, kStart);
  EXPECT_EQ(roster.missing(milliseconds(5000)),
            "ranks 1 and 3 have not joined within 5.0 s (2 of 4 are here)");
  roster.admit(spec_of(1), 1, kProtocol, kStart);
  EXPECT_EQ(roster.missing(milliseconds(1250)),
            "rank 3 has not joined within 1.2 s (3 of 4 are here)");
}

TEST(Roster, SilenceIsExactAndNamesTheOldestFirst) {
  Roster roster = full_roster(4);
  const milliseconds timeout(3000);
  roster.heartbeat(0, running(9), kStart + milliseconds(2900));
  roster.heartbeat(1, running(9123, "all-reduce 57"), kStart + milliseconds(500));
  roster.heartbeat(2, running(9122), kStart + milliseconds(700));
  roster.leave(3);
  EXPECT_EQ(roster.silent(kStart + milliseconds(3500), timeout), std::nullopt);
  EXPECT_EQ(*roster.silent(kStart + milliseconds(3501), timeout),
            "rank 1 (host h1, pid 11) silent for 3.0 s in step 9123, last waiting in all-reduce 57"
            "; rank 2 (host h2, pid 12) is silent too, for 2.8 s in step 9122");
}

TEST(Roster, TheTimeTheCoordinatorWasStoppedDoesNotCount) {
  Roster roster = full_roster(2);
  roster.forgive(std::chrono::seconds(10));
  EXPECT_EQ(roster.silent(kStart + milliseconds(13000), milliseconds(3000)), std::nullopt);
  EXPECT_NE(roster.silent(kStart + milliseconds(13001), milliseconds(3000)), std::nullopt);
  EXPECT_EQ(roster.rows(kStart + milliseconds(1)).at(0).heartbeat_age_s, 0.0);
}

TEST(Roster, AJobSaysWhatItWaitsFor) {
  Roster roster = full_roster(2);
  roster.assign(sample_plan(2), kStart);
  const auto in_state = [&](const char* front, const char* other) {
    RankProgress progress = running(0);
    progress.state = front;
    roster.heartbeat(0, progress, kStart);
    progress.state = other;
    roster.heartbeat(1, progress, kStart);
    return roster.serving_state();
  };
  EXPECT_EQ(roster.serving_state(), "loading");
  EXPECT_EQ(in_state(kReadsPrompt, "waiting"), "waiting for the prompt");
  EXPECT_EQ(in_state("loading", "waiting"), "loading");
  EXPECT_EQ(in_state("ready", "running"), "running");
  EXPECT_EQ(in_state(kReadsLine, "running"), "waiting for a line of the chat");
  EXPECT_TRUE(roster.loading().finished);
  EXPECT_EQ(in_state("running", "running"), "running");
  roster.leave(0);
  roster.leave(1);
  EXPECT_EQ(roster.serving_state(), "ended");
}

TEST(Roster, SentencesSayWhatARankDidLast) {
  Roster roster(2);
  roster.admit(spec_of(0), 1, kProtocol, kStart);
  EXPECT_EQ(roster.died(0), "rank 0 (host h0, pid 10) died before the plan was made");
  roster.admit(spec_of(1), 1, kProtocol, kStart);
  roster.assign(sample_plan(2), kStart);
  EXPECT_EQ(roster.died(0), "rank 0 (host h0, pid 10) died while loading");
  RankProgress ready = running(0);
  ready.state = "ready";
  roster.heartbeat(0, ready, kStart);
  EXPECT_EQ(roster.died(0), "rank 0 (host h0, pid 10) died while ready");
  roster.heartbeat(0, running(57), kStart);
  EXPECT_EQ(roster.died(0), "rank 0 (host h0, pid 10) died in step 57");
  EXPECT_EQ(roster.reported(0, "oops", kStart + milliseconds(1000)),
            "rank 0 (host h0, pid 10) reports: oops");
  EXPECT_EQ(roster.reported(0, "oops", kStart + milliseconds(2900)),
            "rank 0 (host h0, pid 10) reports: oops; rank 1 (host h1, pid 11) has been silent for "
            "2.9 s while loading");
}

TEST(Roster, ARankOnAGpuIsShownByIt) {
  RankSpec spec = spec_of(0);
  spec.gpu.name = "Made Up 9000";
  spec.gpu.ordinal = 3;
  Roster roster(1);
  roster.admit(spec, 1, kProtocol, kStart);
  EXPECT_EQ(roster.rows(kStart).at(0).device, "EPYC, avx2, 1 thread");  // no plan says so yet
  Plan plan = sample_plan(1);
  plan.parts[0].gpu = true;
  roster.assign(plan, kStart);
  EXPECT_EQ(roster.rows(kStart).at(0).device, "GPU 3, Made Up 9000");
}

TEST(Roster, RowsShowThePlanAndTheProgress) {
  Roster roster = full_roster(2);
  roster.heartbeat(1, running(5), kStart + milliseconds(100));
  const std::vector<RankStatus> rows = roster.rows(kStart + milliseconds(600));
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[1].rank, 1);
  EXPECT_EQ(rows[1].host, "h1");
  EXPECT_EQ(rows[1].device, "EPYC, avx2, 1 thread");
  EXPECT_EQ(rows[1].stage, 0);
  EXPECT_EQ(rows[1].tp_index, 1);
  EXPECT_EQ(rows[1].n_layers, 2);
  EXPECT_EQ(rows[1].share, 0.5);
  EXPECT_EQ(rows[1].planned_bytes, (1 << 20) + (1 << 19));
  EXPECT_EQ(rows[1].progress.step, 5);
  EXPECT_NEAR(rows[1].heartbeat_age_s, 0.5, 1e-9);
}

TEST(Roster, RanksBeyondThePlanAreIdleButFollowed) {
  Roster roster(3);
  for (int rank = 0; rank < 3; ++rank) roster.admit(spec_of(rank), 1, kProtocol, kStart);
  roster.assign(sample_plan(2), kStart);
  EXPECT_EQ(roster.rows(kStart).at(2).stage, -1);
  roster.heartbeat(0, running(1), kStart + milliseconds(5000));
  roster.heartbeat(1, running(1), kStart + milliseconds(5000));
  EXPECT_TRUE(has(*roster.silent(kStart + milliseconds(5000), milliseconds(3000)), "rank 2"));
}

TEST(Roster, LoadingIsKnownWhenAllHaveTold) {
  Roster roster = full_roster(2);
  RankProgress progress;
  progress.state = "loading";
  progress.loaded_bytes = progress.load_total_bytes = 10;
  roster.heartbeat(0, progress, kStart);
  EXPECT_FALSE(roster.loading().known);
  progress.loaded_bytes = 3;
  roster.heartbeat(1, progress, kStart);
  EXPECT_TRUE(roster.loading().known);
  EXPECT_FALSE(roster.loading().finished);
  EXPECT_EQ(roster.loading().done_bytes, 13);
  EXPECT_EQ(roster.loading().total_bytes, 20);
  roster.heartbeat(0, running(0), kStart);  // holds nothing: total 0, but past loading
  progress.state = "ready";
  roster.heartbeat(1, progress, kStart);
  EXPECT_TRUE(roster.loading().known);
  EXPECT_TRUE(roster.loading().finished);
}

}  // namespace
}  // namespace spillway

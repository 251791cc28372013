// `spillway status`: asking a job, who may ask, what the table looks like.
#include "rpc/job_status.h"

#include <gtest/gtest.h>

#include <sstream>

#include "rpc/address.h"
#include "tests/rpc/tcp_relay.h"
#include "tests/rpc/test_job.h"

namespace spillway {
namespace {

using namespace testing;  // NOLINT: the test kit of this folder

std::string fetch_error(const std::string& address, const std::string& secret, double timeout_s) {
  try {
    fetch_status(address, secret, timeout_s);
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

TEST(JobStatus, IsWhatTheCoordinatorSees) {
  TestJob job(2);
  EXPECT_EQ(fetch_status(job.coordinator->address(), "", kSoon_s).state, "waiting for ranks");
  job.join_all(2);
  RankProgress progress = running(12, "all-reduce 3");
  progress.memory_bytes = 5 << 20;
  progress.decode_tok_per_s = 24.5;
  progress.prefill_tok_per_s = 300;
  progress.tokens_done = 99;
  progress.loaded_bytes = progress.load_total_bytes = 1 << 20;
  job.ranks[0]->set(progress);
  job.ranks[1]->set(running(11));
  ASSERT_TRUE(job.wait_for_state("running"));
  const JobStatus status = fetch_status(job.coordinator->address(), "", kSoon_s);
  EXPECT_EQ(status.model, "Sample Model");
  EXPECT_EQ(status.plan_title, plan_title(sample_plan(2)));
  EXPECT_EQ(status.state, "running");
  EXPECT_EQ(status.predicted_tok_per_s, 25);
  EXPECT_GT(status.uptime_s, 0);
  EXPECT_LT(status.uptime_s, 600);
  ASSERT_EQ(status.ranks.size(), 2u);
  const RankStatus& rank = status.ranks[0];
  EXPECT_EQ(rank.host, "host0");
  EXPECT_EQ(rank.pid, 1000);
  EXPECT_EQ(rank.device, "Test CPU, scalar, 1 thread");
  EXPECT_EQ(rank.n_layers, 2);
  EXPECT_EQ(rank.share, 0.5);
  EXPECT_EQ(rank.planned_bytes, (1 << 20) + (1 << 19));
  EXPECT_EQ(rank.progress.step, 12);
  EXPECT_EQ(rank.progress.waiting_for, "all-reduce 3");
  EXPECT_EQ(rank.progress.memory_bytes, 5 << 20);
  EXPECT_EQ(rank.progress.decode_tok_per_s, 24.5);
  EXPECT_EQ(rank.progress.prefill_tok_per_s, 300);
  EXPECT_EQ(rank.progress.tokens_done, 99);
  EXPECT_EQ(rank.progress.loaded_bytes, 1 << 20);
  EXPECT_EQ(rank.progress.load_total_bytes, 1 << 20);
  EXPECT_EQ(status.ranks[1].tp_index, 1);
  for (const auto& each : job.ranks) each->agent().leave();
}

TEST(JobStatus, BeyondLoopbackTheSecretIsNeeded) {
  const HostPort own = reachable({"0.0.0.0", 0});
  if (own.host == "127.0.0.1") GTEST_SKIP() << "this machine has no address beyond loopback";
  TestJob job(1, [&](CoordinatorOptions& options) { options.listen = to_string(own); });
  const std::string address = job.coordinator->address();
  EXPECT_TRUE(has(address, own.host));
  for (const char* wrong : {"", "0123456789abcdeX", "0123456789abcdef0"}) {
    const std::string reason = fetch_error(address, wrong, kSoon_s);
    EXPECT_TRUE(has(reason, "wants the job's secret")) << reason;
  }
  EXPECT_EQ(fetch_status(address, kSecret, kSoon_s).state, "waiting for ranks");
}

TEST(JobStatus, NobodyThereIsSaidInTime) {
  int port = 0;
  const int mute = listen_on_loopback(&port, own_loopback());  // accepts and says nothing
  const std::string address = address_text(own_loopback(), port);
  for (const bool closed : {false, true}) {
    if (closed) ::close(mute);
    const auto start = std::chrono::steady_clock::now();
    const std::string reason = fetch_error(address, "", 0.5);
    EXPECT_TRUE(has(reason, "no Spillway coordinator answers at " + address + " within 0.5 s"))
        << reason;
    EXPECT_LT(std::chrono::steady_clock::now() - start, kSoon);
  }
  for (const char* bad : {"", "host", "127.0.0.1:0", "127.0.0.1:99999"}) {
    EXPECT_TRUE(has(fetch_error(bad, "", 0.5), "is no address")) << bad;
  }
}

JobStatus sample_status() {
  JobStatus status;
  status.model = "SmolLM2-135M-Instruct";
  status.plan_title = "TP2 (2:1) x PP2, layers 15+15";
  status.state = "running";
  status.uptime_s = 123.4;
  status.predicted_tok_per_s = 26;
  for (int rank = 0; rank < 4; ++rank) {
    RankStatus row;
    row.rank = rank;
    row.host = rank == 3 ? "a-very-long-host-name-of-the-cluster-17" : "node";
    row.pid = 123450 + rank;
    row.stage = rank / 2;
    row.tp_index = rank % 2;
    row.first_layer = 15 * (rank / 2);
    row.n_layers = 15;
    row.share = rank % 2 == 0 ? 2.0 / 3 : 1.0 / 3;
    row.planned_bytes = rank == 2 ? int64_t{3} << 30 : 120 << 20;
    row.heartbeat_age_s = 0.25;
    row.progress = running(9123);
    row.progress.memory_bytes = 60 << 20;
    status.ranks.push_back(row);
  }
  status.ranks[0].progress.decode_tok_per_s = 24.16;
  status.ranks[0].progress.prefill_tok_per_s = 310;
  status.ranks[0].progress.tokens_done = 1234;
  return status;
}

TEST(StatusTable, ALayerAloneIsNoRange) {
  JobStatus status = sample_status();
  status.ranks[0].n_layers = 1;
  status.ranks[0].progress.tokens_done = 1;
  status.ranks[0].progress.state = kReadsPrompt;
  status.ranks[0].progress.step = -1;  // none yet
  const std::string table = status_table(status);
  EXPECT_FALSE(has(table, "0-0")) << table;
  EXPECT_TRUE(has(table, ", 1 token\n")) << table;
  EXPECT_TRUE(has(table, " reading prompt     -")) << table;
  EXPECT_FALSE(has(table, "-1 ")) << table;
}

TEST(StatusTable, ShowsTheJobAndARowARank) {
  JobStatus status = sample_status();
  status.ranks[1].progress.state = "loading";
  status.ranks[1].progress.loaded_bytes = 1;
  status.ranks[1].progress.load_total_bytes = 3;
  const std::string table = status_table(status);
  for (const char* part :
       {"SmolLM2-135M-Instruct, TP2 (2:1) x PP2, layers 15+15\n", "running, up 2 min 3 s",
        "decode 24.2 tok/s (predicted 26.0), prefill 310.0 tok/s, 1234 tokens", "node:123450",
        "0/0", "1/1", "0-14", "15-29", "66.7 %", "9123", "60.0 of 120.0 MiB (50 %)",
        "0.06 of 3.00 GiB (2 %)", "loading 33 %", "0.2 s", "cluster-17:123453"}) {
    EXPECT_TRUE(has(table, part)) << part << "\n" << table;
  }
  std::istringstream lines(table);
  std::string line;
  int n_lines = 0;
  while (std::getline(lines, line)) {
    EXPECT_LE(line.size(), 100u) << line;
    EXPECT_TRUE(line.empty() || line.back() != ' ') << line;
    ++n_lines;
  }
  EXPECT_EQ(n_lines, 2 + 1 + 4);
}

TEST(StatusTable, EmptyAndHostileStatusesAreTables) {
  JobStatus status;
  EXPECT_TRUE(has(status_table(status), "no rank has joined yet"));
  status = sample_status();
  status.model = "evil\x1b[2J\r\nmodel";
  status.state = "failed: rank 3 died";
  status.ranks[0].host = "h\x1b]0;x\x07";
  status.ranks[0].progress.state = std::string(500, 'x');
  status.ranks[0].progress.memory_bytes = INT64_MAX;
  status.ranks[1].progress = {};
  status.ranks[1].stage = -1;
  status.ranks[1].n_layers = 0;
  status.ranks[1].planned_bytes = 0;
  const std::string table = status_table(status);
  EXPECT_EQ(table.find('\x1b'), std::string::npos);
  EXPECT_EQ(table.find('\r'), std::string::npos);
  EXPECT_EQ(table.find('\x07'), std::string::npos);
  EXPECT_TRUE(has(table, "failed: rank 3 died\nup "));
  EXPECT_FALSE(has(table, std::string(15, 'x')));
}

}  // namespace
}  // namespace spillway

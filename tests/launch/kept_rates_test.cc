// Rates that are kept: found again for the same hardware, and for no other; damaged files are said
// and passed over; and what `probe` prints of a cluster.
#include "launch/kept_rates.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "kernels/core/error.h"
#include "launch/cluster_report.h"
#include "tests/support/temp_dir.h"

namespace spillway::testing {
namespace {

namespace fs = std::filesystem;

ClusterSpec sample() {
  ClusterSpec cluster = assumed_cluster(2);
  cluster.ranks[1].gpu.name = "Made Up";
  cluster.ranks[1].gpu.total_bytes = int64_t{8} << 30;
  cluster.ranks[1].gpu.h2d_gb_per_s = 52.5;
  cluster.ranks[1].gpu.d2h_gb_per_s = 50;
  cluster.ranks[1].host_reads = {{1, 9, 8, 52}, {16, 86.2, 84, 52}};
  cluster.pairs = {{0, 1, "peer", 396, 4.6}};
  return cluster;
}

void expect_says(const std::string& text, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) {
    EXPECT_NE(text.find(part), std::string::npos) << "\"" << part << "\" in: " << text;
  }
}

TEST(KeptRates, AreFoundForTheSameHardwareAlone) {
  const TempDir dir;
  const std::string folder = dir.file("a/b");
  std::string warning;
  EXPECT_FALSE(find_kept_rates(folder, "this", 2, warning));
  const std::string path = keep_rates(folder, "this", sample());
  const auto found = find_kept_rates(folder, "this", 2, warning);
  ASSERT_TRUE(found);
  EXPECT_EQ(warning, "");
  EXPECT_EQ(found->path, path);
  EXPECT_EQ(found->file.cluster.ranks[1].gpu.h2d_gb_per_s, 52.5);
  expect_says(kept_rates_text(*found), {"rates measured 2", "UTC", path});
  EXPECT_FALSE(find_kept_rates(folder, "that", 2, warning));
  EXPECT_FALSE(find_kept_rates("", "this", 2, warning));
  EXPECT_EQ(warning, "");
  // Nothing unfinished is left beside it.
  EXPECT_EQ(std::distance(fs::directory_iterator(folder), fs::directory_iterator()), 1);
}

TEST(KeptRates, DamagedAndForeignFilesAreSaidAndReplaced) {
  const TempDir dir;
  const std::string path = keep_rates(dir.path(), "this", sample());
  const std::string other = keep_rates(dir.path(), "other", sample());
  std::string warning;
  fs::copy_file(other, path, fs::copy_options::overwrite_existing);
  EXPECT_FALSE(find_kept_rates(dir.path(), "this", 2, warning));
  expect_says(warning, {path, "other hardware"});
  warning.clear();
  EXPECT_FALSE(find_kept_rates(dir.path(), "other", 3, warning));
  EXPECT_NE(warning, "");
  for (const char* text : {"", "garbage", "[[ranks]]\nrank = -1\n", "\xff\xfe"}) {
    std::ofstream(path, std::ios::trunc) << text;
    warning.clear();
    EXPECT_FALSE(find_kept_rates(dir.path(), "this", 2, warning));
    expect_says(warning, {path, "not used"});
  }
  keep_rates(dir.path(), "this", sample());
  EXPECT_TRUE(find_kept_rates(dir.path(), "this", 2, warning));
}

TEST(KeptRates, AFolderThatCannotBeIsAnError) {
  const TempDir dir;
  std::ofstream(dir.file("file")) << "x";
  EXPECT_THROW(keep_rates(dir.file("file/below"), "this", sample()), Error);
  EXPECT_THROW(write_whole(dir.file("none/f"), "x"), Error);
}

TEST(KeptRates, AFingerprintHasWhatRatesDependOn) {
  RankSpec facts = sample().ranks[1];
  const std::string text = rank_fingerprint(facts);
  expect_says(text, {"spillway", facts.cpu, "GiB", "Made Up", "rank 1 of 2", "1 threads"});
  const auto differs = [&](const auto& change) {
    RankSpec changed = facts;
    change(changed);
    return rank_fingerprint(changed) != text;
  };
  EXPECT_TRUE(differs([](RankSpec& rank) { rank.threads = 2; }));
  EXPECT_TRUE(differs([](RankSpec& rank) { rank.gpu.uuid = "GPU-2"; }));
  EXPECT_TRUE(differs([](RankSpec& rank) { rank.gpu = {}; }));
  EXPECT_TRUE(differs([](RankSpec& rank) { rank.local_size = 3; }));
  EXPECT_FALSE(differs([](RankSpec& rank) { rank.memory_free_bytes = 5; }));
  EXPECT_FALSE(differs([](RankSpec& rank) { rank.gpu.free_bytes = 5; }));
  facts.cpu = std::string(5000, 'x');
  EXPECT_LE(rank_fingerprint(facts).size(), 900U);
}

TEST(ClusterReport, IsReadByPeopleAndPrograms) {
  expect_says(cluster_report(sample()),
              {"assumed: ", "rank 1: 1 thread, 8.00 GiB free", "1 thread 9.0, 16 threads 86.2 GB/s",
               "16 threads 84.0 + 52.0", "52.5 GB/s to the GPU, 50.0 back", "GPU            none",
               "between the GPUs of ranks 0 and 1: peer, 396 GB/s", "4.6 us"});
  const auto json = nlohmann::json::parse(cluster_json(sample()).dump());
  EXPECT_FALSE(json.contains("origin"));
  EXPECT_EQ(json["ranks"][1]["gpu"]["h2d_gb_per_s"], 52.5);
  EXPECT_EQ(json["ranks"][1]["host_read_threads"], (std::vector<int>{1, 16}));
  EXPECT_EQ(json["pairs"][0]["fabric"], "peer");
  EXPECT_EQ(json["link"]["measured"], false);
}

}  // namespace
}  // namespace spillway::testing

// Cluster files: every field there and back, what is refused with its line and the nearest key, and
// the files that come with the program.
#include "parallel/cluster_file.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "kernels/core/error.h"
#include "parallel/toml.h"
#include "tests/parallel/refusal.h"

namespace spillway::testing {
namespace {

namespace fs = std::filesystem;

ClusterSpec full_cluster() {
  ClusterSpec cluster;
  cluster.ranks = {{0, "a \"b\"", 1, 2, 0, "cpu \xff", "isa", 4, int64_t{5} << 40, 6.25, 0.1, true},
                   {1, "", 0, 1, 0, "", "", 1, 0, 0, 0, false}};
  cluster.ranks[1].gpu = {"gpu", "GPU-1", 2,    9,    1,    132, int64_t{6} << 40, int64_t{5} << 40,
                          1e3,   450.25,  52.5, 54.1, 0.75, 1};
  cluster.ranks[1].host_reads = {{1, 8.5, 6.25, 51.5}, {16, 90.1, 84.25, 52.5}};
  cluster.ranks[1].together = {32, 60.5, 55.25, 40.5};
  cluster.ranks[1].pin_gb_per_s = 1.75;
  cluster.ranks[1].numa_nodes = 2;
  cluster.ranks[1].disk_gb_per_s = 2.75;
  cluster.ranks[1].page_cache_gb_per_s = 9.25;
  cluster.ranks[0].cpu_alone = {
      4, {{QuantType::kQ4_K, 20.5, 110.25}, {QuantType::kQ6_K, 19, 95.5}}, 8.5, 30.25, 0.5, 0.25,
      12};
  cluster.ranks[0].cpu_together = {8, {{QuantType::kQ4_K, 15.5, 100.1}}, 6, 20, 0.75, 0.5, 13.5};
  cluster.ranks[1].busy_share = 0.375;
  cluster.link = {8.5, 9.75, true, 12.25};
  cluster.pairs = {{0, 1, "peer", 310.5, 4.25}};
  return cluster;
}

TEST(ClusterFileTest, EveryFieldComesBackBitForBit) {
  const ClusterOrigin origin = {"spillway 1", "2026-11-26", "cpu\n\"x\""};
  const std::string text = cluster_text(full_cluster(), origin);
  const ClusterFile back = parse_cluster(text, "f");
  // The text has all fields (structured bindings see to it), so equal texts are equal clusters.
  EXPECT_EQ(cluster_text(back.cluster, back.origin), text);
  ASSERT_EQ(back.cluster.size(), 2);
  const RankSpec& rank = back.cluster.ranks[1];
  EXPECT_EQ(back.cluster.ranks[0].cpu, "cpu \xff");
  EXPECT_EQ(back.cluster.ranks[0].matrix_gop_per_s, 0.1);
  EXPECT_EQ(back.cluster.ranks[0].local_rank, 1);
  EXPECT_EQ(rank.gpu.d2h_gb_per_s, 54.1);
  EXPECT_EQ(rank.gpu.numa_node, 1);
  ASSERT_EQ(rank.host_reads.size(), 2u);
  EXPECT_EQ(rank.host_reads[1].beside_bus_gb_per_s, 84.25);
  EXPECT_EQ(rank.together, full_cluster().ranks[1].together);
  EXPECT_EQ(rank.page_cache_gb_per_s, 9.25);
  EXPECT_EQ(rank.busy_share, 0.375);
  EXPECT_NE(busy_text(back.cluster).find("others had 38 %"), std::string::npos);
  EXPECT_EQ(back.cluster.ranks[0].cpu_alone, full_cluster().ranks[0].cpu_alone);
  EXPECT_EQ(back.cluster.ranks[0].cpu_together, full_cluster().ranks[0].cpu_together);
  EXPECT_EQ(rank.cpu_alone, CpuRates{});
  ASSERT_NE(back.cluster.pair(1, 0), nullptr);
  EXPECT_EQ(back.cluster.pair(0, 1)->fabric, "peer");
  EXPECT_EQ(back.origin.fingerprint, origin.fingerprint);
  EXPECT_FALSE(back.cluster.ranks[0].gpu.present());
}

void expect_documented(const TomlTable& table, const std::string& page) {
  for (const auto& [key, value] : table.values) {
    EXPECT_NE(page.find(key), std::string::npos) << table.name << "." << key;
  }
  for (const TomlTable& child : table.tables) expect_documented(child, page);
}

TEST(ClusterFileTest, OnlyABusyMachineIsSpokenOf) {
  ClusterSpec cluster = full_cluster();
  cluster.ranks[1].busy_share = 0.09;
  EXPECT_EQ(busy_text(cluster), "");
  RankSpec busy;
  busy.busy_share = 0.5;
  EXPECT_EQ(with_rates({}, busy).busy_share, 0.5);
}

TEST(ClusterFileTest, EveryKeyIsDocumented) {
  std::ifstream file(SPILLWAY_SOURCE_DIR "/docs/config.md");
  const std::string page((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const size_t begin = page.find("## Clusters");
  ASSERT_NE(begin, std::string::npos);
  expect_documented(parse_toml(cluster_text(full_cluster(), {}), "f"),
                    page.substr(begin, page.find("## Model shapes") - begin));
  for (const fs::directory_entry& entry :
       fs::directory_iterator(SPILLWAY_SOURCE_DIR "/configs/models")) {
    expect_documented(read_toml(entry.path().string()), page.substr(page.find("## Model shapes")));
  }
}

constexpr const char* kSmall =
    "[[ranks]]\nrank = 0\nhost = \"h\"\nthreads = 2\nmemory_free_bytes = 1000\n"
    "[ranks.gpu]\nname = \"g\"\nmajor = 9\nminor = 0\ntotal_bytes = 20\nfree_bytes = 10\n"
    "[[ranks]]\nrank = 1\nhost = \"h\"\nthreads = 2\nmemory_free_bytes = 1000\n"
    "[[pairs]]\nfrom = 0\nto = 1\nfabric = \"nccl\"\n";

TEST(ClusterFileTest, WhatAFileMayLeaveOut) {
  const ClusterSpec cluster = parse_cluster(kSmall, "f").cluster;
  EXPECT_EQ(cluster.ranks[1].local_rank, 1);
  EXPECT_EQ(cluster.ranks[1].local_size, 2);
  EXPECT_EQ(cluster.ranks[0].numa_nodes, 1);
  EXPECT_EQ(cluster.ranks[0].gpu.numa_node, -1);
  EXPECT_TRUE(cluster.ranks[0].host_reads.empty());
  EXPECT_EQ(cluster.ranks[0].cpu_together.threads, 0);
}

// kSmall with one line replaced, or one more at its end.
void expect_refused(const std::string& from, const std::string& to, int line,
                    const std::vector<std::string>& why) {
  std::string text = kSmall;
  if (from.empty()) {
    text += to;
  } else {
    text.replace(text.find(from), from.size(), to);
  }
  try {
    parse_cluster(text, "f.toml");
    ADD_FAILURE() << "taken: " << text;
  } catch (const Error& error) {
    expect_says(error.what(), why);
    expect_says(error.what(), {"f.toml, line " + std::to_string(line)});
  }
}

TEST(ClusterFileTest, WhatIsWrongIsNamedWithItsLine) {
  expect_refused("threads = 2", "thread = 2", 1, {"ranks.threads is missing"});
  expect_refused("threads = 2", "threads = 2\nisaa = \"x\"", 5,
                 {"ranks.isaa is not known", "did you mean isa?"});
  expect_refused("minor = 0", "minor = 0\nread_gb_per_sec = 1.0", 10,
                 {"did you mean read_gb_per_s"});
  expect_refused("threads = 2", "threads = 2.5", 4, {"must be a whole number"});
  expect_refused("threads = 2", "threads = 0", 4, {"threads is 0, below 1"});
  expect_refused("threads = 2", "threads = \"2\"", 4, {"a whole number", "a text"});
  expect_refused("threads = 2", "threads = 3000000000", 4, {"beyond"});
  expect_refused("memory_free_bytes = 1000", "memory_free_bytes = -1", 5, {"-1, below 0"});
  expect_refused("memory_free_bytes = 1000", "memory_free_bytes = 1000\nread_gb_per_s = -0.5", 6,
                 {"ranks.read_gb_per_s is -0.5, below 0"});
  expect_refused("rank = 1", "rank = 2", 13, {"rank 1 is missing", "rank 2"});
  expect_refused("free_bytes = 10\n", "free_bytes = 30\n", 11, {"more bytes free"});
  expect_refused("name = \"g\"", "name = \"\"", 7, {"without a name"});
  expect_refused("to = 1", "to = 2", 18, {"rank 0 to 2", "2 ranks"});
  expect_refused("fabric = \"nccl\"", "fabric = \"wire\"", 20, {"peer, nccl or staged"});
  expect_refused("", "[[pairs]]\nfrom = 0\nto = 1\nfabric = \"peer\"\n", 22, {"twice"});
  expect_refused("", "[lnk]\n", 21, {"[lnk] is not known", "did you mean link?"});
  expect_refused("", "[[link]]\n", 21, {"must be [link]"});
  expect_refused("threads = 2",
                 "threads = 2\nhost_read_threads = [1, 2]\nhost_read_gb_per_s = [3.0]", 6,
                 {"2, 1, 2 and 2 values"});
  expect_refused("threads = 2",
                 "threads = 2\nhost_read_threads = [2, 1]\nhost_read_gb_per_s = [3.0, 4.0]", 5,
                 {"must rise"});
  const std::string products =
      "threads = 2\ncpu_threads = 2\ncpu_attend_gb_per_s = 1.0\ncpu_attend_gop_per_s = 1.0\n"
      "cpu_product_types = [\"Q4_K\", \"Q6_K\"]\ncpu_product_row_gb_per_s = [3.0, 4.0]\n";
  expect_refused("threads = 2", products + "cpu_product_gop_per_s = [3.0]", 8, {"2, 2 and 1"});
  expect_refused("threads = 2", products + "cpu_product_gop_per_s = [3.0, 0.0]", 8,
                 {"products of Q6_K have no rate"});
  expect_refused("threads = 2", "threads = 2\ncpu_product_types = [\"Q4_L\"]", 5, {"1, 0 and 0"});
  expect_refused("threads = 2",
                 "threads = 2\ncpu_product_types = [\"Q4_L\"]\ncpu_product_row_gb_per_s = [1.0]\n"
                 "cpu_product_gop_per_s = [1.0]",
                 5, {"\"Q4_L\"", "no type of weights"});
  expect_refused("threads = 2",
                 "threads = 2\ncpu_product_types = [\"Q6_K\", \"Q4_K\"]\n"
                 "cpu_product_row_gb_per_s = [1.0, 1.0]\ncpu_product_gop_per_s = [1.0, 1.0]",
                 5, {"the order of GGUF's numbers"});
  expect_refused("threads = 2", "threads = 2\ncpu_product_types = [4]", 5, {"must hold texts"});
  expect_refused("threads = 2", "threads = 2\ncpu_threads = 2", 5, {"need cpu_threads"});
  std::string many;
  for (int i = 0; i < 4097; ++i) {
    many += "[[ranks]]\nrank = " + std::to_string(i) +
            "\nhost = \"h\"\nthreads = 1\nmemory_free_bytes = 1\n";
  }
  EXPECT_THROW(parse_cluster(many, "f"), Error);
  EXPECT_THROW(parse_cluster("", "f"), Error);
  EXPECT_THROW(parse_cluster("[ranks]\nrank = 0\n", "f"), Error);
}

TEST(ClusterFileTest, TheFirstRanksShareTheirHostsAlone) {
  const ClusterSpec cluster = parse_cluster(kSmall, "f").cluster;
  const ClusterSpec one = first_ranks(cluster, 1, "f");
  EXPECT_EQ(one.size(), 1);
  EXPECT_TRUE(one.pairs.empty());
  EXPECT_EQ(one.ranks[0].local_size, 1);
  EXPECT_EQ(one.ranks[0].memory_free_bytes, 2000);
  EXPECT_EQ(first_ranks(cluster, 2, "f").pairs.size(), 1u);
  EXPECT_EQ(first_ranks(cluster, 2, "f").ranks[1].memory_free_bytes, 1000);
  EXPECT_THROW(first_ranks(cluster, 3, "f"), Error);
}

// What is known of the machines that the files are named after, from data sheets.
TEST(ClusterFileTest, TheReadyMadeFilesAreWhatTheirNamesSay) {
  struct Expected {
    const char* file;
    std::vector<const char*> gpus;
    size_t hosts;
  };
  const char* c3090 = "NVIDIA GeForce RTX 3090";
  const char* c4090 = "NVIDIA GeForce RTX 4090";
  const char* c5090 = "NVIDIA GeForce RTX 5090";
  const char* c3060 = "NVIDIA GeForce RTX 3060";
  const Expected all[] = {{"2x3090", {c3090, c3090}, 1},
                          {"2x4090", {c4090, c4090}, 1},
                          {"2x5090", {c5090, c5090}, 1},
                          {"4x3090", {c3090, c3090, c3090, c3090}, 1},
                          {"3090_3060", {c3090, c3060}, 1},
                          {"1x12gb_64gb", {c3060}, 1},
                          {"2xh200", {"NVIDIA H200", "NVIDIA H200"}, 1},
                          {"2x2x3090_10gbe", {c3090, c3090, c3090, c3090}, 2}};
  const std::string folder = SPILLWAY_SOURCE_DIR "/configs/clusters/";
  for (const Expected& expected : all) {
    SCOPED_TRACE(expected.file);
    const ClusterSpec cluster = read_cluster_file(folder + expected.file + ".toml").cluster;
    ASSERT_EQ(cluster.ranks.size(), expected.gpus.size());
    const size_t n = cluster.ranks.size();
    EXPECT_EQ(cluster.pairs.size(), n * (n - 1) / 2);
    std::vector<std::string> hosts;
    for (const RankSpec& rank : cluster.ranks) {
      EXPECT_EQ(rank.gpu.name, expected.gpus[static_cast<size_t>(rank.rank)]);
      EXPECT_EQ(ranks_on_gpu(cluster, rank.rank).size(), 1u);
      EXPECT_GT(rank.gpu.read_gb_per_s, 0);
      EXPECT_GT(rank.gpu.matrix_tflops, 0);
      EXPECT_GT(rank.gpu.h2d_gb_per_s, 0);
      EXPECT_GT(rank.gpu.d2h_gb_per_s, 0);
      EXPECT_GT(rank.gpu.launch_gap_us, 0);
      EXPECT_GT(rank.host_reads.size(), 1u);
      EXPECT_EQ(rank.host_reads.back().threads, rank.threads);
      for (const HostRead& read : rank.host_reads) {
        EXPECT_LE(read.beside_bus_gb_per_s, read.gb_per_s);
        EXPECT_LE(read.bus_gb_per_s, rank.gpu.h2d_gb_per_s);
      }
      if (std::find(hosts.begin(), hosts.end(), rank.host) == hosts.end()) {
        hosts.push_back(rank.host);
      }
    }
    EXPECT_EQ(hosts.size(), expected.hosts);
    for (const PairSpec& pair : cluster.pairs) {
      const bool geforce = std::string(expected.gpus[0]).find("GeForce") != std::string::npos;
      EXPECT_EQ(pair.fabric == "peer", !geforce) << "no peer access with the stock driver";
      EXPECT_GT(pair.gb_per_s, 0);
      EXPECT_GT(pair.small_sum_us, 0);
    }
  }
  // No file without a test.
  const auto files = std::distance(fs::directory_iterator(folder), fs::directory_iterator());
  EXPECT_EQ(static_cast<size_t>(files), std::size(all));
}

}  // namespace
}  // namespace spillway::testing

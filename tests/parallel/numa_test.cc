// NUMA nodes as Linux tells them, in folders made for the test, and which rank keeps to which.
#include "parallel/numa.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "parallel/probe.h"
#include "tests/support/temp_dir.h"

namespace spillway {
namespace {

using Numbers = std::vector<int>;

void write(const std::filesystem::path& path, const std::string& text) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path) << text;
}

TEST(Numa, ReadsListsOfNumbers) {
  EXPECT_EQ(parse_number_list("0-3,8,10-11\n"), (Numbers{0, 1, 2, 3, 8, 10, 11}));
  EXPECT_EQ(parse_number_list("5"), Numbers{5});
  EXPECT_EQ(parse_number_list("1,1,0"), (Numbers{0, 1}));
  EXPECT_EQ(parse_number_list("2,x"), Numbers{2});
  EXPECT_EQ(parse_number_list("3-1"), Numbers{});
  EXPECT_EQ(parse_number_list("\n"), Numbers{});
  EXPECT_LE(parse_number_list("0-99999999999999999999").size(), size_t{1} << 14);
}

TEST(Numa, ReadsNodesWithProcessors) {
  const testing::TempDir dir;
  write(dir.file("online"), "0-2\n");
  write(dir.file("node0/cpulist"), "0-1,4-5\n");
  write(dir.file("node1/cpulist"), "2-3\n");
  write(dir.file("node2/cpulist"), "\n");  // a GPU's memory
  const std::vector<NumaNode> nodes = read_numa_nodes(dir.path());
  ASSERT_EQ(nodes.size(), 2u);
  EXPECT_EQ(nodes[0].id, 0);
  EXPECT_EQ(nodes[0].cpus, (Numbers{0, 1, 4, 5}));
  EXPECT_EQ(nodes[1].id, 1);
  EXPECT_EQ(nodes[1].cpus, (Numbers{2, 3}));
  EXPECT_TRUE(read_numa_nodes(dir.file("none")).empty());
}

TEST(Numa, RanksGoWhereTheirGpusHang) {
  const std::vector<NumaNode> nodes = {{0, {0, 1}}, {3, {2, 3}}};
  EXPECT_EQ(deal_numa_nodes(nodes, {3, 0}), (Numbers{1, 0}));
  EXPECT_EQ(deal_numa_nodes(nodes, {0, 0, 3, 3}), (Numbers{0, 0, 1, 1}));
  // A CPU's ranks where there are fewest.
  EXPECT_EQ(deal_numa_nodes(nodes, {-1, -1}), (Numbers{0, 1}));
  EXPECT_EQ(deal_numa_nodes(nodes, {-1, 0}), (Numbers{1, 0}));
  EXPECT_EQ(deal_numa_nodes(nodes, {-1, 0, 0, -1}), (Numbers{1, 0, 0, 1}));
}

TEST(Numa, NobodyKeepsToANodeWhenOneWouldBeLeft) {
  const std::vector<NumaNode> nodes = {{0, {0, 1}}, {1, {2, 3}}};
  EXPECT_TRUE(deal_numa_nodes(nodes, {0}).empty());
  EXPECT_TRUE(deal_numa_nodes(nodes, {1, 1}).empty());
  EXPECT_TRUE(deal_numa_nodes({{0, {0, 1}}}, {0, 0}).empty());
  EXPECT_TRUE(deal_numa_nodes({}, {0}).empty());
}

TEST(Numa, AThreadAndWhatItStartsKeepToProcessors) {
  // In a thread of its own, so that the test's are left as they were.
  std::thread([] {
    NumaNode all{0, {}};
    for (int cpu = 0; cpu < 1024; ++cpu) all.cpus.push_back(cpu);
    const Numbers mine = allowed_cpus_of(all);
    ASSERT_FALSE(mine.empty());
    const Numbers last = {mine.back()};
    if (!keep_to_cpus(last)) GTEST_SKIP() << "this container lets no thread be bound";
    std::thread([&] { EXPECT_EQ(allowed_cpus_of(all), last); }).join();
    EXPECT_TRUE(keep_to_cpus(mine));
    EXPECT_EQ(allowed_cpus_of(all), mine);
    EXPECT_FALSE(keep_to_cpus({}));
  }).join();
}

TEST(Numa, RanksOfANodeShareItsCores) {
  constexpr double kNoQuota = 1e9;
  EXPECT_EQ(cores_of_numa_rank(8, 2, 4, kNoQuota), 4);
  EXPECT_EQ(cores_of_numa_rank(8, 3, 4, kNoQuota), 2);
  EXPECT_EQ(cores_of_numa_rank(8, 2, 4, 6.0), 1);  // the quota is for all four
  EXPECT_EQ(cores_of_numa_rank(1, 4, 4, kNoQuota), 1);
}

}  // namespace
}  // namespace spillway

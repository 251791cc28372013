// The probe: control-group files of both versions, this machine's facts, rates within a budget.
#include "parallel/probe.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <utility>

#include "kernels/core/error.h"
#include "parallel/cgroup.h"
#include "parallel/cpu_rates.h"
#include "parallel/crossing_lines.h"
#include "parallel/disk_rate.h"
#include "parallel/host_reads.h"
#include "parallel/solo_communicator.h"
#include "tests/support/temp_dir.h"

namespace spillway {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();

class CgroupFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "spillway_cgroup_XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    root_ = name;
  }
  void TearDown() override { fs::remove_all(root_); }
  void write(const std::string& path, const std::string& text) {
    const fs::path file = fs::path(root_ + "/" + path);
    fs::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  std::string root_;
};

TEST_F(CgroupFiles, NothingThereLimitsNothing) {
  for (const char* text : {"", "0::/a/b\n", "garbage", "1:2", "::::", "0::relative"}) {
    const CgroupLimits limits = cgroup_limits(root_, text);
    EXPECT_TRUE(std::isinf(limits.cores)) << text;
    EXPECT_EQ(limits.memory_left_bytes, kNoLimit) << text;
  }
}

TEST_F(CgroupFiles, Version2TakesTheTightestOnTheWayUp) {
  write("a/cpu.max", "150000 100000\n");
  write("a/b/cpu.max", "max 100000\n");
  write("a/memory.max", "1000000\n");
  write("a/memory.current", "400000\n");
  write("a/b/memory.max", "max\n");
  write("a/b/memory.current", "100\n");
  const CgroupLimits limits = cgroup_limits(root_, "0::/a/b\n");
  EXPECT_DOUBLE_EQ(limits.cores, 1.5);
  EXPECT_EQ(limits.memory_left_bytes, 600000);
}

TEST_F(CgroupFiles, Version2CachedFilesDoNotCount) {
  write("memory.max", "1000");
  write("memory.current", "900");
  write("memory.stat", "anon 100\ninactive_file 300\nactive_file 5\n");
  EXPECT_EQ(cgroup_limits(root_, "0::/\n").memory_left_bytes, 400);
}

TEST_F(CgroupFiles, OverTheLimitIsZeroNotNegative) {
  write("memory.max", "1000");
  write("memory.current", "5000");
  EXPECT_EQ(cgroup_limits(root_, "0::/").memory_left_bytes, 0);
}

TEST_F(CgroupFiles, Version1) {
  write("cpu/x/cpu.cfs_quota_us", "50000");
  write("cpu/x/cpu.cfs_period_us", "100000");
  write("memory/y/memory.limit_in_bytes", "2000");
  write("memory/y/memory.usage_in_bytes", "500");
  write("memory/memory.limit_in_bytes", "9223372036854771712");
  write("memory/memory.usage_in_bytes", "500");
  const CgroupLimits limits = cgroup_limits(root_, "4:memory:/y\n1:cpu,cpuacct:/x\n0::/\n");
  EXPECT_DOUBLE_EQ(limits.cores, 0.5);
  EXPECT_EQ(limits.memory_left_bytes, 1500);
  write("cpu/x/cpu.cfs_quota_us", "-1");
  EXPECT_TRUE(std::isinf(cgroup_limits(root_, "1:cpu,cpuacct:/x\n").cores));
}

TEST(Probe, CoresOfARank) {
  constexpr double kNoQuota = 1e9;
  EXPECT_EQ(cores_of_rank(2, 16, 16, kNoQuota), 8);  // unbound: its share
  EXPECT_EQ(cores_of_rank(2, 8, 16, kNoQuota), 8);   // bound to a socket each
  EXPECT_EQ(cores_of_rank(2, 1, 16, kNoQuota), 1);   // bound to a core each
  EXPECT_EQ(cores_of_rank(2, 12, 16, kNoQuota), 6);  // taskset around mpirun: shared
  EXPECT_EQ(cores_of_rank(2, 64, 64, 4.0), 2);       // a container's quota is shared
  EXPECT_EQ(cores_of_rank(5, 2, 2, kNoQuota), 1);    // more ranks than cores
  EXPECT_GE(cores_of_rank(1), 1);
}

TEST(Meminfo, FindsTheKey) {
  const std::string text = "MemTotal: 100 kB\nMemAvailable:   42 kB\n";
  EXPECT_EQ(meminfo_bytes(text, "MemAvailable"), 42 * 1024);
  EXPECT_EQ(meminfo_bytes(text, "Mem"), 0);
  EXPECT_EQ(meminfo_bytes("MemAvailable: x kB", "MemAvailable"), 0);
  EXPECT_EQ(meminfo_bytes("", "MemAvailable"), 0);
}

TEST(Probe, FactsOfThisMachine) {
  EXPECT_GE(usable_cores(), 1);
  EXPECT_GT(usable_memory_bytes(), 1 << 20);
  const int64_t free_before = usable_memory_bytes();
  EXPECT_LT(free_before, int64_t{1} << 50);
  ThreadPool pool(1);
  ProbeOptions options;
  options.rank = 3;
  options.local_rank = 1;
  options.local_size = 2;
  options.measure = false;
  const RankSpec spec = probe_rank({&pool, cpu::best_isa()}, options);
  EXPECT_EQ(spec.rank, 3);
  EXPECT_EQ(spec.local_rank, 1);
  EXPECT_EQ(spec.local_size, 2);
  EXPECT_EQ(spec.pid, getpid());
  EXPECT_EQ(spec.threads, 1);
  EXPECT_FALSE(spec.host.empty());
  EXPECT_FALSE(spec.cpu.empty());
  EXPECT_EQ(spec.isa, cpu::isa_name(cpu::best_isa()));
  EXPECT_FALSE(spec.measured);
  EXPECT_EQ(spec.read_gb_per_s, 0);
  // Half of it; others may take and give memory meanwhile.
  EXPECT_LT(spec.memory_free_bytes, std::max(free_before, usable_memory_bytes()));
}

TEST(Probe, MeasuredRatesAreSane) {
  ThreadPool pool(2);
  const auto start = std::chrono::steady_clock::now();
  const RankSpec spec = probe_rank({&pool, cpu::best_isa()}, {});
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  EXPECT_TRUE(spec.measured);
  EXPECT_EQ(spec.threads, 2);
  EXPECT_GT(spec.read_gb_per_s, 0);
  EXPECT_LT(spec.read_gb_per_s, 5000);
  EXPECT_GT(spec.matrix_gop_per_s, 0);
  EXPECT_LT(spec.matrix_gop_per_s, 1e5);
  // 0.2 s on an idle machine; how long where others build at the same time is nobody's promise.
  std::printf("probe: %.1f GB/s, %.1f Gop/s, %.0f ms\n", spec.read_gb_per_s, spec.matrix_gop_per_s,
              seconds.count() * 1e3);
}

TEST(Probe, HostReadsByThreadsAndBesideTheBus) {
  ThreadPool pool(3);
  int loads = 0;
  int polls = 0;
  BusLoad bus;
  bus.start = [&](double seconds) {
    EXPECT_GT(seconds, 0);
    polls = 2;
    ++loads;
  };
  bus.running = [&] { return polls-- > 0; };
  bus.finish = [&] { return 12.5 + loads; };
  const auto reads = measure_host_reads({&pool, cpu::best_isa()}, int64_t{256} << 20, bus);
  ASSERT_EQ(reads.size(), 2U);  // one thread is half of three
  EXPECT_EQ(reads[0].threads, 1);
  EXPECT_EQ(reads[1].threads, 3);
  for (const HostRead& read : reads) {
    EXPECT_GT(read.gb_per_s, 0);
    EXPECT_GT(read.beside_bus_gb_per_s, 0);
    EXPECT_LE(read.beside_bus_gb_per_s, read.gb_per_s);
  }
  EXPECT_EQ(reads[1].bus_gb_per_s, 14.5);
  ThreadPool one(1);
  const auto alone = measure_host_reads({&one, cpu::best_isa()}, 0, {});
  ASSERT_EQ(alone.size(), 1U);
  EXPECT_EQ(alone[0].beside_bus_gb_per_s, 0);
}

TEST(Probe, ReadsOfAllRanksTogetherBeginWhenAllAreThere) {
  ThreadPool pool(2);
  const cpu::Exec exec{&pool, cpu::best_isa()};
  RankSpec spec;
  spec.memory_free_bytes = int64_t{512} << 20;
  spec.local_size = 3;
  int calls = 0;
  measure_rates(exec, spec, [&] {
    ++calls;
    EXPECT_GT(spec.matrix_gop_per_s, 0);  // all else is done by then
    EXPECT_EQ(spec.together.threads, 0);
  });
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(spec.together.threads, 6);
  EXPECT_GT(spec.together.gb_per_s, 0.05);
  EXPECT_EQ(spec.together.bus_gb_per_s, 0);
  RankSpec alone;
  measure_rates(exec, alone, [&] { ++calls; });
  EXPECT_EQ(calls, 2) << "the others of the job wait for it";
  EXPECT_EQ(alone.together.threads, 0);
  EXPECT_EQ(with_rates({}, spec).together, spec.together);
  ReadBuffer buffer(exec, int64_t{16} << 20);
  bool on = false;
  BusLoad bus;
  bus.start = [&](double) { on = true; };
  bus.running = [&] { return std::exchange(on, false); };
  bus.finish = [] { return 12.5; };
  const HostRead read = measure_together(buffer, 8, 0, bus);
  EXPECT_EQ(read.threads, 8);
  EXPECT_GT(read.beside_bus_gb_per_s, 0);
  EXPECT_EQ(read.bus_gb_per_s, 12.5);
}

TEST(Probe, WhatLayersReachIsMeasuredSliceBySlice) {
  ThreadPool pool(2);
  const cpu::Exec exec{&pool, cpu::best_isa()};
  const ReadBuffer weights(exec, int64_t{16} << 20);
  const std::vector<QuantType> types = {QuantType::kF16, QuantType::kQ4_K, QuantType::kIQ3_S};
  int slices = 0;
  CpuProbe probe(exec, weights);
  EXPECT_EQ(probe.busy_share(), 0);
  const CpuRates rates = probe.measure(6, types, 0, true, [&slices] { ++slices; });
  EXPECT_GE(probe.busy_share(), 0);
  EXPECT_LE(probe.busy_share(), 1);
  EXPECT_EQ(slices, CpuProbe::slices(types));
  EXPECT_EQ(rates.threads, 6);
  ASSERT_EQ(rates.products.size(), types.size());
  for (size_t i = 0; i < types.size(); ++i) {
    EXPECT_EQ(rates.products[i].type, types[i]);
    EXPECT_GT(rates.products[i].row_gb_per_s, 0);
    EXPECT_GT(rates.products[i].gop_per_s, 0);
  }
  EXPECT_GT(rates.attend_gb_per_s, 0);
  EXPECT_GT(rates.attend_gop_per_s, 0);
  EXPECT_GE(rates.row_value_ns, 0);
  EXPECT_GE(rates.value_ns, 0);
  EXPECT_GE(rates.layer_us, 0);
  const std::vector<QuantType> all = all_product_types();
  EXPECT_TRUE(std::is_sorted(all.begin(), all.end()));
  EXPECT_EQ(std::count(all.begin(), all.end(), QuantType::kQ6_K), 1);
}

TEST(Probe, LinesCrossInStepsOfAnySize) {
  ThreadPool pool(3);
  const cpu::Exec exec{&pool, cpu::best_isa()};
  CrossingLines lines(8, 96, 256);
  for (const int64_t rows : {1, 2, 7, 8}) {
    for (const bool by_columns : {false, true}) {
      lines.run(exec, rows, 96, 256, by_columns);
      lines.run(exec, rows, 32, 40, by_columns);
    }
  }
}

TEST(Probe, DiskRatesOfAFile) {
  const testing::TempDir dir;
  const std::string path = dir.file("data");
  std::ofstream(path) << std::string(20 << 20, 'x');
  constexpr int64_t kFree = int64_t{1} << 30;
  for (const int readers : {2, 8}) {
    const DiskRates rates = measure_disk(path, readers, kFree);
    EXPECT_GT(rates.page_cache_gb_per_s, 0);
    EXPECT_GE(rates.disk_gb_per_s, 0);  // 0 where files cannot be read past the page cache
  }
  std::ofstream(path) << "small";
  EXPECT_EQ(measure_disk(path, 2, kFree).page_cache_gb_per_s, 0);
  EXPECT_THROW(measure_disk(dir.file("none"), 2, kFree), Error);
  EXPECT_THROW(measure_disk(dir.path(), 2, kFree), Error);
}

TEST(Probe, RatesOfOneRankWithFactsOfAnother) {
  RankSpec measured;
  measured.host = "then";
  measured.measured = true;
  measured.memory_free_bytes = 1;
  measured.read_gb_per_s = 2;
  measured.disk_gb_per_s = 3;
  measured.host_reads = {{1, 4, 5, 6}};
  measured.gpu.name = "gpu";
  measured.gpu.free_bytes = 7;
  measured.gpu.h2d_gb_per_s = 8;
  RankSpec facts;
  facts.host = "now";
  facts.memory_free_bytes = 9;
  RankSpec both = with_rates(facts, measured);
  EXPECT_EQ(both.host, "now");
  EXPECT_EQ(both.memory_free_bytes, 9);
  EXPECT_TRUE(both.measured);
  EXPECT_EQ(both.read_gb_per_s, 2);
  EXPECT_EQ(both.disk_gb_per_s, 3);
  EXPECT_EQ(both.host_reads.size(), 1U);
  EXPECT_EQ(both.gpu.h2d_gb_per_s, 0) << "this rank has no GPU";
  facts.gpu.name = "gpu";
  facts.gpu.free_bytes = 10;
  both = with_rates(facts, measured);
  EXPECT_EQ(both.gpu.h2d_gb_per_s, 8);
  EXPECT_EQ(both.gpu.free_bytes, 10);
}

TEST(Probe, LinkOfOneRankIsFree) {
  const auto solo = make_solo_communicator();
  const LinkSpec link = probe_link(*solo);
  EXPECT_TRUE(link.measured);
  EXPECT_EQ(link.latency_us, 0);
}

}  // namespace
}  // namespace spillway

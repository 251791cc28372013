// Speed of the products of 9 to 64 rows in the shapes of an 8B model, for every plan of
// tile_plan.h: microseconds and GB/s of weights, the best plans beside the one that is chosen and
// beside the tiles of tile.cuh (int8). Matrices rotate through 2 GiB, so that nothing comes from
// the cache. gate+up includes the activation.
//
//   kernels_cuda_tile_bench [TYPE...]
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "kernels/cuda/tile_plan.h"
#include "tests/support/cuda_product_bench.h"

namespace spillway {
namespace {

using cuda_test::BenchShape;

constexpr BenchShape kShapes[] = {{"gate+up", 28672, 4096, true}, {"down", 4096, 14336, false},
                                  {"qkv", 6144, 4096, false},     {"qk", 5120, 4096, false},
                                  {"v", 1024, 4096, false},       {"o", 4096, 4096, false},
                                  {"head", 128256, 4096, false}};
constexpr int64_t kPool = int64_t{2} << 30;
constexpr int64_t kMostRows = 64;

struct Timed {
  cuda::TilePlan plan;
  double us;
};

class Bench : cuda_test::ProductBench {
 public:
  Bench()
      : ProductBench({kPool, 64 << 20, kMostRows * 128256 * 4, kMostRows * 14336 * 4},
                     0x3f3f3f3fu) {}

  void type(QuantType type) {
    for (const BenchShape& s : kShapes) {
      for (const int64_t n : {9, 16, 32, 64}) shape(type, s, n);
    }
  }

 private:
  double time(QuantType type, const BenchShape& s, int64_t n, int graphs) {
    const int64_t bytes = packed_bytes(type, s.rows, s.cols);
    const auto count = std::clamp<int64_t>((int64_t{600} << 20) / bytes, 4, 24);
    return chain_us(type, {s}, n, static_cast<int>(count), graphs);
  }

  std::vector<cuda::TilePlan> plans(const BenchShape& s, int64_t n) const {
    const int nt = n <= 16 ? 2 : n <= 32 ? 4 : 8;
    std::vector<cuda::TilePlan> out;
    for (const int split : {1, 2, 4, 8}) {
      if (split > (run_.exec.major < 9 ? 1 : s.rows > 8192 ? 2 : 8)) continue;
      for (int strips = 1; strips <= 8; ++strips) {
        for (const int parts : {1, 2, 3, 4, 5, 6, 8}) {
          const int warps = strips * parts;
          if (warps < 4 || warps > cuda::kMostStripWarps) continue;
          for (const int stages : {2, 3}) {
            const cuda::TilePlan plan{strips, parts, split, stages};
            if (cuda::strip_shared_bytes(plan, nt, 2) <= most_shared()) out.push_back(plan);
          }
        }
      }
    }
    return out;
  }
  int64_t most_shared() const { return (run_.exec.major >= 9 ? 227 : 99) * 1024; }

  void print(const char* name, double us, double bytes) const {
    std::printf(" %s %.1f (%.0f)", name, us, bytes / us / 1000);
  }
  static std::string name_of(const cuda::TilePlan& plan) {
    return std::to_string(plan.strips) + "x" + std::to_string(plan.parts) + "/" +
           std::to_string(plan.split) + "s" + std::to_string(plan.stages);
  }

  void shape(QuantType type, const BenchShape& s, int64_t n) {
    const auto bytes = static_cast<double>(packed_bytes(type, s.rows, s.cols));
    std::printf("%-8s %-8s n %2d |", quant_info(type).name, s.name, static_cast<int>(n));
    run_.exec.bf16_tiles = false;
    print("int8", time(type, s, n, 5), bytes);
    run_.exec.bf16_tiles = true;
    print("| chosen", time(type, s, n, 7), bytes);
    std::vector<Timed> all;
    for (const cuda::TilePlan& plan : plans(s, n)) {
      run_.exec.tile_plan = &plan;
      all.push_back({plan, time(type, s, n, 1)});
    }
    std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.us < b.us; });
    all.resize(std::min<size_t>(all.size(), 6));
    for (Timed& one : all) {
      run_.exec.tile_plan = &one.plan;
      one.us = time(type, s, n, 7);
    }
    std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.us < b.us; });
    std::printf(" | best");
    for (const Timed& one : all) print(name_of(one.plan).c_str(), one.us, bytes);
    std::printf("\n");
    std::fflush(stdout);
    run_.exec.tile_plan = nullptr;
  }
};

}  // namespace
}  // namespace spillway

int main(int argc, char** argv) {
  using namespace spillway;
  const auto run = [](std::vector<std::string> names) {
    if (names.empty()) names = {"Q4_K", "Q6_K", "Q8_0"};
    Bench bench;
    for (const std::string& name : names) bench.type(*quant_type_from_name(name));
  };
  return cuda_test::bench_main(
      argc, argv, "us a product (GB/s of weights); plans: strips x parts / split, stages", run);
}

// Speed of the products of many rows in the shapes of an 8B and a 70B model: microseconds and
// TFLOP/s of the library with its dequantiser, beside those of wide.h. Matrices rotate through 2
// GiB, so that nothing comes from the cache.
//
//   kernels_cuda_wide_bench [TYPE...] [N...]
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "kernels/cuda/wide.h"
#include "tests/support/cuda_product_bench.h"

namespace spillway {
namespace {

using cuda_test::BenchShape;

constexpr BenchShape kShapes[] = {
    {"8B qkv", 6144, 4096},          {"8B o", 4096, 4096},      {"8B gate+up", 28672, 4096},
    {"8B down", 4096, 14336},        {"70B qkv", 10240, 8192},  {"70B o", 8192, 8192},
    {"70B gate+up", 57344, 8192},    {"70B down", 8192, 28672}, {"8B gated", 28672, 4096, true},
    {"70B gated", 57344, 8192, true}};
constexpr int64_t kPool = int64_t{2} << 30;
constexpr int64_t kMostRows = 2048;

class Bench : cuda_test::ProductBench {
 public:
  Bench()
      : ProductBench({kPool, kMostRows * 28672 * 2, kMostRows * 57344 * 4, kMostRows * 28672 * 2},
                     0xbfbfbfbfu),
        library_(run_.exec, int64_t{57344} * 8192 * 2) {}

  void type(QuantType type, const std::vector<int64_t>& ns) {
    for (const int64_t n : ns) {
      for (const BenchShape& s : kShapes) shape(type, s, n);
    }
  }

 private:
  double time(QuantType type, const BenchShape& s, int64_t n) {
    const double flops = 2.0 * static_cast<double>(n * s.rows * s.cols);
    return chain_us(type, {s}, n, static_cast<int>(std::clamp(2e12 / flops, 3.0, 20.0)), 5);
  }

  void shape(QuantType type, const BenchShape& s, int64_t n) {
    const double flops = 2.0 * static_cast<double>(n * s.rows * s.cols);
    const auto print = [&](const std::string& name, double us) {
      std::printf(" | %s %.1f us %.0f", name.c_str(), us, flops / us * 1e-6);
    };
    std::printf("%-5s n %4d %-12s", quant_info(type).name, static_cast<int>(n), s.name);
    run_.exec.wide = false;
    run_.exec.most_tile_rows = 128;
    print("library", time(type, s, n));
    run_.exec.wide = cuda::wide_here(run_.exec);
    run_.exec.most_wide_rows = 4 * kMostRows;  // also of grids
    if (run_.exec.wide) print("wide", time(type, s, n));
    std::printf("\n");
    std::fflush(stdout);
  }

  cuda_test::WithLibrary library_;
};

}  // namespace
}  // namespace spillway

int main(int argc, char** argv) {
  using namespace spillway;
  const auto run = [](const std::vector<std::string>& words) {
    std::vector<QuantType> types;
    std::vector<int64_t> ns;
    for (const std::string& word : words) {
      const auto type = quant_type_from_name(word);
      if (type) {
        types.push_back(*type);
      } else {
        ns.push_back(std::stoll(word));
      }
    }
    if (types.empty()) types = {QuantType::kQ4_K, QuantType::kQ6_K};
    if (ns.empty()) ns = {256, 512, 1024, 2048};
    Bench bench;
    for (const QuantType type : types) bench.type(type, ns);
  };
  return cuda_test::bench_main(argc, argv, "us a product and TFLOP/s", run);
}

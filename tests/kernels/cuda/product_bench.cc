// Speed of the CUDA products: GB/s of weights for few rows, tokens' worth of TFLOP/s for many, of
// the shapes of an 8B model. Matrices rotate through 4 GiB, so that nothing comes from the cache;
// a chain of them is one graph, as in a decode step.
//
//   kernels_cuda_bench [TYPE...]
#include <cstdio>
#include <string>
#include <vector>

#include "tests/support/cuda_product_bench.h"

namespace spillway {
namespace {

using cuda_test::BenchShape;

constexpr BenchShape kShapes[] = {
    {"qkv", 6144, 4096}, {"o", 4096, 4096}, {"gate+up", 28672, 4096}, {"down", 4096, 14336}};
constexpr int64_t kPool = int64_t{4} << 30;

class Bench : cuda_test::ProductBench {
 public:
  Bench()
      : ProductBench({kPool, int64_t{4096} * 14336 * 4, int64_t{4096} * 28672 * 4, 0}, 0x3f3f3f3fu),
        library_(run_.exec, int64_t{28672} * 4096 * 2) {}

  double time(QuantType type, const std::vector<BenchShape>& chain, int64_t n, int count) {
    return chain_us(type, chain, n, count, 7);
  }

  void type(QuantType type) {
    std::printf("%-8s", quant_info(type).name);
    for (const BenchShape& s : kShapes) {
      const double us = time(type, {s}, 1, 40);
      std::printf(" %s %.0f", s.name,
                  static_cast<double>(packed_bytes(type, s.rows, s.cols)) / us / 1000);
    }
    const std::vector<BenchShape> layer(std::begin(kShapes), std::end(kShapes));
    int64_t bytes = 0;
    for (const BenchShape& s : layer) bytes += packed_bytes(type, s.rows, s.cols);
    std::printf(" | layer");
    for (const int64_t n : {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 2048}) {
      const double us = time(type, layer, n, n > 64 ? 4 : 16);
      std::printf(" n%ld %.0fus", static_cast<long>(n), us);
      if (n > 8 && n <= 256) {
        const int64_t usual = run_.exec.most_tile_rows;
        run_.exec.bf16_tiles = true;
        run_.exec.most_tile_rows = 256;
        std::printf(" bf16 %.0fus", time(type, layer, n, n > 64 ? 4 : 16));
        run_.exec.bf16_tiles = false;
        run_.exec.most_tile_rows = usual;
      }
      if (n == 8) {
        run_.exec.most_vector_rows = 4;
        std::printf(" tiles8 %.0fus", time(type, layer, n, 16));
        run_.exec.most_vector_rows = 8;
      }
      if (n >= 128 && n <= 512) {
        run_.exec.most_tile_rows = n == 128 ? 0 : 512;
        std::printf(n == 128 ? " lib %.0fus" : " tiles %.0fus", time(type, layer, n, 4));
        run_.exec.most_tile_rows = 128;
      }
      if (n <= 8) std::printf("(%.0f)", static_cast<double>(bytes) / us / 1000);
      if (n >= 512) std::printf("(%.0fTF)", static_cast<double>(n) * 2 * 218103808 / us * 1e-6);
    }
    std::printf("\n");
    std::fflush(stdout);
  }

 private:
  cuda_test::WithLibrary library_;
};

}  // namespace
}  // namespace spillway

int main(int argc, char** argv) {
  using namespace spillway;
  const auto run = [](std::vector<std::string> names) {
    if (names.empty())
      names = {"Q4_K", "Q6_K", "Q5_K",   "Q8_0",  "Q4_0",
               "Q3_K", "Q2_K", "IQ4_XS", "IQ3_S", "IQ2_XXS"};
    Bench bench;
    for (const std::string& name : names) bench.type(*quant_type_from_name(name));
  };
  return cuda_test::bench_main(argc, argv, "GB/s of weights by shape at n = 1; us (GB/s) a layer",
                               run);
}

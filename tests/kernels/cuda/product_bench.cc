// Speed of the CUDA products: GB/s of weights for few rows, tokens' worth of TFLOP/s for many, of
// the shapes of an 8B model. Matrices rotate through 4 GiB, so that nothing comes from the cache;
// a chain of them is one graph, as in a decode step.
//
//   kernels_cuda_bench [TYPE...]
#include <algorithm>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/cuda/library.h"
#include "tests/support/cuda_fixtures.h"

namespace spillway {
namespace {

struct Shape {
  const char* name;
  int64_t rows;
  int64_t cols;
};
constexpr Shape kShapes[] = {
    {"qkv", 6144, 4096}, {"o", 4096, 4096}, {"gate+up", 28672, 4096}, {"down", 4096, 14336}};
constexpr int64_t kPool = int64_t{4} << 30;

class Bench {
 public:
  Bench()
      : workspace_("library", cuda::Library::kWorkspaceBytes),
        scratch_("scratch", int64_t{28672} * 4096 * 2),
        weights_("weights", kPool),
        x_("x", int64_t{4096} * 14336 * 4),
        out_("out", int64_t{4096} * 28672 * 4),
        library_(workspace_.data()) {
    run_.exec.library = &library_;
    run_.exec.scratch = scratch_.data();
    run_.exec.scratch_bytes = scratch_.bytes();
    // Bytes below 64: halves of ordinary size.
    std::mt19937 random(1);
    std::vector<uint32_t> words(16 << 20);
    for (uint32_t& w : words) w = static_cast<uint32_t>(random()) & 0x3f3f3f3fu;
    for (int64_t at = 0; at < kPool; at += 64 << 20) {
      cuda::copy_to_device(run_.stream, weights_.data() + at, words.data(), 64 << 20);
    }
    cuda::copy_to_device(run_.stream, x_.data(), words.data(), 64 << 20);
    run_.wait();
  }

  // Microseconds of one product, of a chain of `count`.
  double time(QuantType type, const std::vector<Shape>& chain, int64_t n, int count) {
    cuda::Graph::begin(run_.stream);
    int64_t at = 0;
    for (int i = 0; i < count; ++i) {
      for (const Shape& s : chain) {
        const int64_t bytes = packed_bytes(type, s.rows, s.cols);
        if (at + bytes > kPool) at = 0;
        const PackedMatrix w{type, s.rows, s.cols, weights_.data() + at};
        at += bytes;
        const cuda::Input in{n,
                             s.cols,
                             reinterpret_cast<float*>(x_.data()),
                             reinterpret_cast<int8_t*>(x_.data()),
                             reinterpret_cast<cuda::ActivationBlock*>(x_.data()),
                             reinterpret_cast<uint16_t*>(x_.data())};
        cuda::matmul(run_.exec, {&w, 1}, in, {reinterpret_cast<float*>(out_.data()), n, s.rows});
      }
    }
    const cuda::Graph graph = cuda::Graph::end(run_.stream);
    return cuda_test::median_ms(run_, graph, 7) * 1000.0 / count;
  }

  void type(QuantType type) {
    std::printf("%-8s", quant_info(type).name);
    for (const Shape& s : kShapes) {
      const double us = time(type, {s}, 1, 40);
      std::printf(" %s %.0f", s.name,
                  static_cast<double>(packed_bytes(type, s.rows, s.cols)) / us / 1000);
    }
    const std::vector<Shape> layer(std::begin(kShapes), std::end(kShapes));
    int64_t bytes = 0;
    for (const Shape& s : layer) bytes += packed_bytes(type, s.rows, s.cols);
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
  cuda_test::Runner run_;
  cuda::DeviceMemory workspace_, scratch_, weights_, x_, out_;
  cuda::Library library_;
};

}  // namespace
}  // namespace spillway

int main(int argc, char** argv) {
  using namespace spillway;
  try {
    Bench bench;
    std::printf("%s; GB/s of weights by shape at n = 1; us (GB/s) a layer\n",
                cuda_test::device().name.c_str());
    std::vector<std::string> names(argv + 1, argv + argc);
    if (names.empty())
      names = {"Q4_K", "Q6_K", "Q5_K",   "Q8_0",  "Q4_0",
               "Q3_K", "Q2_K", "IQ4_XS", "IQ3_S", "IQ2_XXS"};
    for (const std::string& name : names) bench.type(*quant_type_from_name(name));
  } catch (const Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
  return 0;
}

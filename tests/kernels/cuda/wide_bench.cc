// Speed of the products of many rows in the shapes of an 8B and a 70B model: microseconds and
// TFLOP/s of the library with its dequantiser, beside those of wide.h. Matrices rotate through 2
// GiB, so that nothing comes from the cache.
//
//   kernels_cuda_wide_bench [TYPE...] [N...]
#include <algorithm>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/cuda/library.h"
#include "kernels/cuda/wide.h"
#include "tests/support/cuda_fixtures.h"

namespace spillway {
namespace {

struct Shape {
  const char* name;
  int64_t rows;
  int64_t cols;
  bool gated = false;
};
constexpr Shape kShapes[] = {{"8B qkv", 6144, 4096},          {"8B o", 4096, 4096},
                             {"8B gate+up", 28672, 4096},     {"8B down", 4096, 14336},
                             {"70B qkv", 10240, 8192},        {"70B o", 8192, 8192},
                             {"70B gate+up", 57344, 8192},    {"70B down", 8192, 28672},
                             {"8B gated", 28672, 4096, true}, {"70B gated", 57344, 8192, true}};
constexpr int64_t kPool = int64_t{2} << 30;
constexpr int64_t kMostRows = 2048;

class Bench {
 public:
  Bench()
      : workspace_("library", cuda::Library::kWorkspaceBytes),
        scratch_("scratch", int64_t{57344} * 8192 * 2),
        weights_("weights", kPool),
        x_("x", kMostRows * 28672 * 2),
        out_("out", kMostRows * 57344 * 4),
        gated_("gated", kMostRows * 28672 * 2),
        library_(workspace_.data()) {
    run_.exec.library = &library_;
    run_.exec.scratch = scratch_.data();
    run_.exec.scratch_bytes = scratch_.bytes();
    // Halves and bf16 of ordinary size and either sign: products cost the power that they do.
    std::mt19937 random(1);
    std::vector<uint32_t> words(16 << 20);
    for (uint32_t& w : words) w = static_cast<uint32_t>(random()) & 0xbfbfbfbfu;
    for (int64_t at = 0; at < kPool; at += 64 << 20) {
      cuda::copy_to_device(run_.stream, weights_.data() + at, words.data(), 64 << 20);
    }
    cuda::copy_to_device(run_.stream, x_.data(), words.data(), 64 << 20);
    cuda::copy_to_device(run_.stream, x_.data() + x_.bytes() - (64 << 20), words.data(), 64 << 20);
    run_.wait();
  }

  void type(QuantType type, const std::vector<int64_t>& ns) {
    for (const int64_t n : ns) {
      for (const Shape& s : kShapes) shape(type, s, n);
    }
  }

 private:
  void product(const Shape& s, const PackedMatrix& w, const cuda::Input& in) const {
    const View2D<float> out(reinterpret_cast<float*>(out_.data()), in.n, s.rows);
    if (!s.gated) return cuda::matmul(run_.exec, {&w, 1}, in, out);
    PackedMatrix parts[2] = {w, w};
    parts[0].rows = parts[1].rows = s.rows / 2;
    parts[1].data += packed_bytes(w.type, s.rows / 2, s.cols);
    const cuda::Input to{in.n,    s.rows / 2, nullptr,
                         nullptr, nullptr,    reinterpret_cast<uint16_t*>(gated_.data())};
    if (cuda::fused_gate(run_.exec, parts[0], parts[1], in.n, cuda::kBf16Form)) {
      cuda::matmul_gated(run_.exec, parts[0], parts[1], false, in, cuda::kBf16Form, to);
    } else {
      cuda::matmul(run_.exec, parts, in, out);
      cuda::gated_activation(run_.exec, out, false, cuda::kBf16Form, to);
    }
  }

  // Microseconds of one product, the median of some chains.
  double time(QuantType type, const Shape& s, int64_t n) {
    const int64_t bytes = packed_bytes(type, s.rows, s.cols);
    const double flops = 2.0 * static_cast<double>(n * s.rows * s.cols);
    const int count = static_cast<int>(std::clamp(2e12 / flops, 3.0, 20.0));
    const cuda::Input in{n,       s.cols,  nullptr,
                         nullptr, nullptr, reinterpret_cast<uint16_t*>(x_.data())};
    cuda::Graph::begin(run_.stream);
    for (int i = 0; i < count; ++i) {
      if (at_ + bytes > kPool) at_ = 0;
      product(s, {type, s.rows, s.cols, weights_.data() + at_}, in);
      at_ += bytes;
    }
    const cuda::Graph graph = cuda::Graph::end(run_.stream);
    return cuda_test::median_ms(run_, graph, 5) * 1000.0 / count;
  }

  void shape(QuantType type, const Shape& s, int64_t n) {
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

  cuda_test::Runner run_;
  cuda::DeviceMemory workspace_, scratch_, weights_, x_, out_, gated_;
  cuda::Library library_;
  int64_t at_ = 0;
};

}  // namespace
}  // namespace spillway

int main(int argc, char** argv) {
  using namespace spillway;
  try {
    Bench bench;
    std::printf("%s; us a product and TFLOP/s\n", cuda_test::device().name.c_str());
    std::vector<QuantType> types;
    std::vector<int64_t> ns;
    for (int i = 1; i < argc; ++i) {
      const auto type = quant_type_from_name(argv[i]);
      if (type) {
        types.push_back(*type);
      } else {
        ns.push_back(std::stoll(argv[i]));
      }
    }
    if (types.empty()) types = {QuantType::kQ4_K, QuantType::kQ6_K};
    if (ns.empty()) ns = {256, 512, 1024, 2048};
    for (const QuantType type : types) bench.type(type, ns);
  } catch (const Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
  return 0;
}

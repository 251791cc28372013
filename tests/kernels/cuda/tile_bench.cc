// Speed of the products of 9 to 64 rows in the shapes of an 8B model, for every plan of
// tile_plan.h: microseconds and GB/s of weights, the best plans beside the one that is chosen and
// beside the tiles of tile.cuh (int8) and tile_bf16.cuh. Matrices rotate through 2 GiB, so that
// nothing comes from the cache. gate+up includes the activation.
//
//   kernels_cuda_tile_bench [TYPE...]
#include <algorithm>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/cuda/tile_plan.h"
#include "tests/support/cuda_fixtures.h"

namespace spillway {
namespace {

struct Shape {
  const char* name;
  int64_t rows;
  int64_t cols;
  bool gated;
};
constexpr Shape kShapes[] = {{"gate+up", 28672, 4096, true}, {"down", 4096, 14336, false},
                             {"qkv", 6144, 4096, false},     {"qk", 5120, 4096, false},
                             {"v", 1024, 4096, false},       {"o", 4096, 4096, false},
                             {"head", 128256, 4096, false}};
constexpr int64_t kPool = int64_t{2} << 30;
constexpr int64_t kMostRows = 64;

struct Timed {
  cuda::TilePlan plan;
  double us;
};

class Bench {
 public:
  Bench()
      : weights_("weights", kPool),
        x_("x", 64 << 20),
        out_("out", kMostRows * 128256 * 4),
        gated_("gated", kMostRows * 14336 * 4) {
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

  void type(QuantType type) {
    for (const Shape& s : kShapes) {
      for (const int64_t n : {9, 16, 32, 64}) shape(type, s, n);
    }
  }

 private:
  cuda::Input input(int64_t n, int64_t cols) const {
    return {n,
            cols,
            reinterpret_cast<float*>(x_.data()),
            reinterpret_cast<int8_t*>(x_.data()),
            reinterpret_cast<cuda::ActivationBlock*>(x_.data()),
            reinterpret_cast<uint16_t*>(x_.data())};
  }

  void product(const Shape& s, const PackedMatrix& w, int64_t n) const {
    const View2D<float> out(reinterpret_cast<float*>(out_.data()), n, s.rows);
    if (!s.gated) return cuda::matmul(run_.exec, {&w, 1}, input(n, s.cols), out);
    PackedMatrix parts[2] = {w, w};
    parts[0].rows = parts[1].rows = s.rows / 2;
    parts[1].data += packed_bytes(w.type, s.rows / 2, s.cols);
    const cuda::Input to{n,       s.rows / 2, nullptr,
                         nullptr, nullptr,    reinterpret_cast<uint16_t*>(gated_.data())};
    if (cuda::fused_gate(run_.exec, parts[0], parts[1], n, cuda::kBf16Form)) {
      cuda::matmul_gated(run_.exec, parts[0], parts[1], false, input(n, s.cols), cuda::kBf16Form,
                         to);
    } else {
      cuda::matmul(run_.exec, parts, input(n, s.cols), out);
      cuda::gated_activation(run_.exec, out, false, cuda::kBf16Form, to);
    }
  }

  // Microseconds of one product, the median of some chains.
  double time(QuantType type, const Shape& s, int64_t n, int chains) {
    const int64_t bytes = packed_bytes(type, s.rows, s.cols);
    const int count = static_cast<int>(std::clamp<int64_t>((int64_t{600} << 20) / bytes, 4, 24));
    cuda::Graph::begin(run_.stream);
    for (int i = 0; i < count; ++i) {
      if (at_ + bytes > kPool) at_ = 0;
      product(s, {type, s.rows, s.cols, weights_.data() + at_}, n);
      at_ += bytes;
    }
    const cuda::Graph graph = cuda::Graph::end(run_.stream);
    return cuda_test::median_ms(run_, graph, chains) * 1000.0 / count;
  }

  std::vector<cuda::TilePlan> plans(const Shape& s, int64_t n) const {
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

  void shape(QuantType type, const Shape& s, int64_t n) {
    const auto bytes = static_cast<double>(packed_bytes(type, s.rows, s.cols));
    std::printf("%-8s %-8s n %2d |", quant_info(type).name, s.name, static_cast<int>(n));
    run_.exec.bf16_tiles = false;
    print("int8", time(type, s, n, 5), bytes);
    run_.exec.bf16_tiles = true;
    run_.exec.strips = false;
    print("bf16", time(type, s, n, 5), bytes);
    run_.exec.strips = true;
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

  cuda_test::Runner run_;
  cuda::DeviceMemory weights_, x_, out_, gated_;
  int64_t at_ = 0;
};

}  // namespace
}  // namespace spillway

int main(int argc, char** argv) {
  using namespace spillway;
  try {
    Bench bench;
    std::printf("%s; us a product (GB/s of weights); plans: strips x parts / split, stages\n",
                cuda_test::device().name.c_str());
    std::vector<std::string> names(argv + 1, argv + argc);
    if (names.empty()) names = {"Q4_K", "Q6_K", "Q8_0"};
    for (const std::string& name : names) bench.type(*quant_type_from_name(name));
  } catch (const Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
  return 0;
}

// What the benches of the CUDA products share: weights that are read in turn, so that nothing comes
// from the cache, inputs, a gated pair, a chain of products as one graph, and main().
#pragma once

#include <algorithm>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "tests/support/cuda_fixtures.h"

namespace spillway::cuda_test {

struct BenchShape {
  const char* name;
  int64_t rows;
  int64_t cols;
  bool gated = false;  // two matrices of half the rows, and the activation
};

class ProductBench {
 protected:
  struct Sizes {  // bytes
    int64_t weights;
    int64_t x;
    int64_t out;
    int64_t gated;
  };
  // mask: of the random words that weights and inputs are made of. 0x3f3f3f3f: bytes below 64, as
  // halves of ordinary size; 0xbfbfbfbf: those of either sign, which cost the power that real ones
  // do.
  ProductBench(const Sizes& sizes, uint32_t mask)
      : weights_("weights", sizes.weights),
        x_("x", sizes.x),
        out_("out", sizes.out),
        gated_("gated", sizes.gated) {
    constexpr int64_t kPiece = 64 << 20;
    std::mt19937 random(1);
    std::vector<uint32_t> words(kPiece / 4);
    for (uint32_t& w : words) w = static_cast<uint32_t>(random()) & mask;
    for (const auto* memory : {&weights_, &x_}) {
      for (int64_t at = 0; at < memory->bytes(); at += kPiece) {
        cuda::copy_to_device(run_.stream, memory->data() + at, words.data(),
                             std::min(kPiece, memory->bytes() - at));
      }
    }
    run_.wait();
  }

  // In all forms; the values are nobody's.
  cuda::Input input(int64_t n, int64_t cols) const {
    return {n,
            cols,
            reinterpret_cast<float*>(x_.data()),
            reinterpret_cast<int8_t*>(x_.data()),
            reinterpret_cast<cuda::ActivationBlock*>(x_.data()),
            reinterpret_cast<uint16_t*>(x_.data())};
  }

  // The next matrix of the pool.
  PackedMatrix next(QuantType type, const BenchShape& s) {
    const int64_t bytes = packed_bytes(type, s.rows, s.cols);
    if (at_ + bytes > weights_.bytes()) at_ = 0;
    const PackedMatrix w{type, s.rows, s.cols, weights_.data() + at_};
    at_ += bytes;
    return w;
  }

  void product(const BenchShape& s, const PackedMatrix& w, int64_t n) const {
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

  // Microseconds of the products of `shapes`, one behind the other: the median of some graphs that
  // hold them `count` times.
  double chain_us(QuantType type, const std::vector<BenchShape>& shapes, int64_t n, int count,
                  int graphs) {
    cuda::Graph::begin(run_.stream);
    for (int i = 0; i < count; ++i) {
      for (const BenchShape& s : shapes) product(s, next(type, s), n);
    }
    const cuda::Graph graph = cuda::Graph::end(run_.stream);
    return median_ms(run_, graph, graphs) * 1000.0 / count;
  }

  Runner run_;

 private:
  cuda::DeviceMemory weights_, x_, out_, gated_;
  int64_t at_ = 0;
};

// main() of a bench: the GPU's name before `title`; an Error ends it with its text.
template <typename Run>
int bench_main(int argc, char** argv, const char* title, const Run& run) {
  try {
    std::printf("%s; %s\n", device().name.c_str(), title);
    run(std::vector<std::string>(argv + 1, argv + argc));
  } catch (const Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
  return 0;
}

}  // namespace spillway::cuda_test

// Microseconds of a decode step's attention a layer: rope_kv_write and attend against
// attend_decode, in a graph of 64 layers, alone and between the products of q, k, v and of the
// output (Q4_K, 4096 wide), under which a kernel's start hides. Layers' caches rotate through 16
// GiB, so that nothing comes from the GPU's cache but what would in a model.
//
//   kernels_cuda_attend_bench
#include <algorithm>
#include <cstdio>
#include <random>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/core/half.h"
#include "tests/support/cuda_fixtures.h"

namespace spillway {
namespace {

constexpr int64_t kPool = int64_t{16} << 30;
constexpr int64_t kWeightPool = int64_t{2} << 30;
constexpr int64_t kDim = 128;
constexpr int64_t kWidth = 4096;
constexpr int64_t kPageTokens = 32;
constexpr int64_t kMostRows = 32;
constexpr int64_t kMostHeads = 32;
constexpr int kLayers = 64;

enum class Way { kNone, kSeparate, kFused };

struct Load {
  int64_t heads;
  int64_t kv_heads;
  int64_t rows;
  int64_t context;
};

class Bench {
 public:
  Bench() : pool_("caches", kPool), weights_("weights", kWeightPool) {
    run_.exec.bf16_tiles = cuda_test::device().major == 9;
    // Bytes below 64: halves of ordinary size.
    std::mt19937 random(1);
    std::vector<uint32_t> words(16 << 20);
    for (uint32_t& w : words) w = static_cast<uint32_t>(random()) & 0x3f3f3f3fu;
    const auto fill = [&](const cuda::DeviceMemory& memory) {
      for (int64_t at = 0; at < memory.bytes(); at += 64 << 20) {
        cuda::copy_to_device(run_.stream, memory.data() + at, words.data(), 64 << 20);
      }
    };
    fill(pool_);
    fill(weights_);
    run_.wait();
  }

  // Microseconds a layer.
  double time(const Load& load, Way way, bool products) {
    set_up(load);
    cuda::Graph::begin(run_.stream);
    for (int i = 0; i < kLayers; ++i) layer(load, way, products, i);
    const cuda::Graph graph = cuda::Graph::end(run_.stream);
    return cuda_test::median_ms(run_, graph, 9) * 1000.0 / kLayers;
  }

 private:
  // A step in which every sequence has `context` tokens, the last of them new.
  void set_up(const Load& load) {
    const int64_t pages_each = div_up(load.context, kPageTokens);
    std::vector<cuda::SequenceRows> sequences;
    std::vector<int32_t> pages;
    std::vector<int64_t> slots;
    for (int64_t s = 0; s < load.rows; ++s) {
      const auto first_page = static_cast<int32_t>(pages.size());
      sequences.push_back(
          {static_cast<int32_t>(s), 1, static_cast<int32_t>(load.context - 1), first_page});
      for (int64_t p = 0; p < pages_each; ++p) {
        pages.push_back(static_cast<int32_t>(s * pages_each + p));
      }
      slots.push_back(int64_t{pages.back()} * kPageTokens + (load.context - 1) % kPageTokens);
    }
    const auto put = [&](const cuda::DeviceMemory& to, const auto& from) {
      cuda::copy_to_device(run_.stream, to.data(), from.data(),
                           static_cast<int64_t>(from.size() * sizeof(from[0])));
    };
    put(sequences_, sequences);
    put(pages_, pages);
    put(slots_, slots);
    run_.wait();
  }

  PackedMatrix matrix(int64_t rows, int64_t cols) {
    const int64_t bytes = round_up(packed_bytes(QuantType::kQ4_K, rows, cols), 256);
    if (weights_at_ + bytes > kWeightPool) weights_at_ = 0;
    const PackedMatrix w{QuantType::kQ4_K, rows, cols, weights_.data() + weights_at_};
    weights_at_ += bytes;
    return w;
  }
  template <typename T>
  static T* as(const cuda::DeviceMemory& memory) {
    return reinterpret_cast<T*>(memory.data());
  }
  static cuda::Input input(const cuda::DeviceMemory& memory, int64_t n, int64_t cols) {
    const int64_t part = memory.bytes() / 4;
    return {n,
            cols,
            reinterpret_cast<float*>(memory.data()),
            reinterpret_cast<int8_t*>(memory.data() + part),
            reinterpret_cast<cuda::ActivationBlock*>(memory.data() + 2 * part),
            reinterpret_cast<uint16_t*>(memory.data() + 3 * part)};
  }

  void layer(const Load& load, Way way, bool products, int index) {
    const int64_t n = load.rows;
    const int64_t q_cols = load.heads * kDim;
    const int64_t kv_cols = load.kv_heads * kDim;
    const View2D<float> qkv(as<float>(qkv_), n, q_cols + 2 * kv_cols);
    const cuda::Input attended = input(attended_, n, q_cols);
    if (products) {
      const PackedMatrix w = matrix(qkv.cols, kWidth);
      cuda::matmul(run_.exec, {&w, 1}, input(normed_, n, kWidth), qkv);
    }
    attention(load, way, index, qkv, attended);
    if (products) {
      const PackedMatrix w = matrix(kWidth, q_cols);
      cuda::matmul_add(run_.exec, w, attended, {as<float>(x_), n, kWidth});
    }
  }

  void attention(const Load& load, Way way, int index, View2D<float> qkv,
                 const cuda::Input& attended) {
    const int64_t n = load.rows;
    const int64_t q_cols = load.heads * kDim;
    const int64_t kv_cols = load.kv_heads * kDim;
    const int64_t pages_each = div_up(load.context, kPageTokens);
    const int64_t bytes = n * pages_each * load.kv_heads * kPageTokens * kDim * 2;  // of K
    const int64_t caches = std::min<int64_t>(kLayers, kPool / (2 * bytes));
    std::byte* k = pool_.data() + index % caches * 2 * bytes;
    const KvView cache{k,           k + bytes, KvType::kF16, n * pages_each, load.kv_heads,
                       kPageTokens, kDim};
    const View2D<float> q_part = qkv.columns(0, q_cols);
    const View2D<float> k_part = qkv.columns(q_cols, kv_cols);
    const View2D<float> v_part = qkv.columns(q_cols + kv_cols, kv_cols);
    const cuda::RopeTable table{{as<float>(cos_), n, kDim / 2}, {as<float>(sin_), n, kDim / 2}};
    const cuda::RopePairing pairing = cuda::RopePairing::kHalves;
    const cuda::StepRows step{as<cuda::SequenceRows>(sequences_), as<int32_t>(pages_), n, n, 1,
                              int64_t{32768} + kPageTokens};
    const HeadMap heads{load.heads, 0, load.heads / load.kv_heads, 0};
    const cuda::AttendRule rule{0.0883883f, 0};
    const unsigned forms = cuda::input_forms(run_.exec, QuantType::kQ4_K, n);
    if (way == Way::kSeparate) {
      cuda::rope_kv_write(run_.exec, table, pairing, q_part, k_part, v_part, as<int64_t>(slots_),
                          cache);
      cuda::attend(run_.exec, q_part, step, heads, cache, rule, workspace_.data(), forms, attended);
    } else if (way == Way::kFused) {
      cuda::attend_decode(run_.exec, table, pairing, q_part, k_part, v_part, as<int64_t>(slots_),
                          step, heads, cache, rule, workspace_.data(), forms, attended);
    }
  }

  cuda_test::Runner run_;
  cuda::DeviceMemory pool_, weights_;
  int64_t weights_at_ = 0;
  cuda::DeviceMemory sequences_{"sequences", kMostRows * 16};
  cuda::DeviceMemory pages_{"pages", kMostRows * 2048 * 4};
  cuda::DeviceMemory slots_{"slots", kMostRows * 8};
  cuda::DeviceMemory cos_{"cos", kMostRows* kDim * 2};
  cuda::DeviceMemory sin_{"sin", kMostRows* kDim * 2};
  cuda::DeviceMemory qkv_{"qkv", kMostRows * 2 * kWidth * 4};
  cuda::DeviceMemory normed_{"normed", kMostRows* kWidth * 16};
  cuda::DeviceMemory attended_{"attended", kMostRows* kWidth * 16};
  cuda::DeviceMemory x_{"x", kMostRows* kWidth * 4};
  cuda::DeviceMemory workspace_{
      "workspace", cuda::attend_workspace_bytes(run_.exec, kMostRows, kMostRows, kMostHeads, 4,
                                                kDim, 32768 + kPageTokens)};
};

void print(Bench& bench, const Load& load) {
  const double separate = bench.time(load, Way::kSeparate, false);
  const double fused = bench.time(load, Way::kFused, false);
  const double products = bench.time(load, Way::kNone, true);
  const double with_separate = bench.time(load, Way::kSeparate, true);
  const double with_fused = bench.time(load, Way::kFused, true);
  std::printf("%2ld/%ld %5ld %7ld | %9.2f %9.2f | %9.2f %+9.2f %+9.2f\n",
              static_cast<long>(load.heads), static_cast<long>(load.kv_heads),
              static_cast<long>(load.rows), static_cast<long>(load.context), separate, fused,
              products, with_separate - products, with_fused - products);
  std::fflush(stdout);
}

}  // namespace
}  // namespace spillway

int main() {
  using namespace spillway;
  try {
    Bench bench;
    std::printf("%s; us a layer\n", cuda_test::device().name.c_str());
    std::printf("heads batch context | separate     fused | products  separate     fused\n");
    for (const auto& [heads, kv_heads] : {std::pair<int64_t, int64_t>{32, 8}, {16, 4}}) {
      for (const int64_t rows : {1, 8, 32}) {
        for (const int64_t context : {128, 512, 4096, 32768}) {
          print(bench, {heads, kv_heads, rows, context});
        }
      }
    }
  } catch (const Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
  return 0;
}

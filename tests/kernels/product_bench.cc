// kernels_bench: speed of the matrix products and of attention by type, instruction set and number
// of activation rows, beside the two ceilings they run against: memory read by this many threads,
// and byte multiply-adds that never leave the registers' reach. Not run by ctest.
//   kernels_bench [threads] [rows] [cols] [type]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <optional>
#include <random>
#include <vector>

#include "kernels/core/arena.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/ops.h"

namespace spillway::cpu {
namespace {

// The processor's time where one thread does all the work: what a shared machine takes away from it
// does not count.
double now_seconds(bool one_thread) {
  timespec t{};
  clock_gettime(one_thread ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// Seconds of one call: the best of 5 samples of at least 60 ms each (the machine may be shared).
template <typename F>
double measure(const ThreadPool& pool, F f) {
  const bool one = pool.size() == 1;
  f();
  std::vector<double> samples;
  for (int s = 0; s < 5; ++s) {
    int calls = 0;
    const double start = now_seconds(one);
    double end = start;
    do {
      f();
      ++calls;
      end = now_seconds(one);
    } while (end - start < 0.06);
    samples.push_back((end - start) / calls);
  }
  std::sort(samples.begin(), samples.end());
  return samples[0];
}

struct Inputs {
  std::vector<float> x;
  std::vector<int8_t> q8;
  std::vector<float> scale;
  std::vector<int32_t> sum;

  Inputs(const Exec& exec, int64_t n, int64_t cols) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    x.resize(static_cast<size_t>(n * cols));
    for (float& value : x) value = normal(random);
    q8.resize(x.size());
    scale.resize(x.size() / 32);
    sum.resize(x.size() / 16);
    quantize_rows(exec, view(n, cols));
  }
  Activations view(int64_t n, int64_t cols) {
    return {View2D<const float>(x.data(), n, cols), View2D<int8_t>(q8.data(), n, cols),
            View2D<float>(scale.data(), n, cols / 32), View2D<int32_t>(sum.data(), n, cols / 16)};
  }
};

void bench_read(ThreadPool& pool) {
  const int64_t bytes = int64_t{1} << 29;
  Arena arena("read", bytes);
  const auto* data = reinterpret_cast<const uint64_t*>(arena.take(bytes));
  volatile uint64_t sink = 0;
  const double seconds = measure(pool, [&] {
    pool.run([&](int worker) {
      const Range part = pool.part(worker, bytes / 8, 64);
      uint64_t s[16] = {};
      for (int64_t i = part.begin; i < part.end; i += 16) {
        for (int j = 0; j < 16; ++j) s[j] ^= data[i + j];
      }
      for (int j = 1; j < 16; ++j) s[0] ^= s[j];
      if (s[0] == 1) sink = s[0];
    });
  });
  std::printf("memory read: %.1f GB/s\n", static_cast<double>(bytes) / seconds / 1e9);
}

void bench_products(ThreadPool& pool, int64_t rows, int64_t cols, std::optional<QuantType> only) {
  using enum QuantType;
  std::printf("%-6s %-12s %5s %10s %8s %9s\n", "type", "isa", "n", "us", "GB/s", "GOP/s");
  for (const QuantType type : {kF32, kF16, kBF16, kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ8_0, kQ2_K, kQ3_K,
                               kQ4_K, kQ5_K, kQ6_K, kIQ4_NL, kIQ4_XS, kMXFP4}) {
    if (only && *only != type) continue;
    if (cols % quant_info(type).block_elements != 0) continue;
    const int64_t bytes = packed_bytes(type, rows, cols);
    Arena arena("weights", bytes);
    const PackedMatrix w{type, rows, cols, arena.take(bytes)};
    for (int isa = 0; isa <= static_cast<int>(best_isa()); ++isa) {
      const Exec exec{&pool, static_cast<Isa>(isa)};
      for (const int64_t n : {1, 2, 4, 8, 64, 256}) {
        if (exec.isa == Isa::kScalar && n > 1) continue;
        Inputs inputs(exec, n, cols);
        std::vector<float> out(static_cast<size_t>(n * rows));
        const double seconds = measure(pool, [&] {
          matmul(exec, std::span(&w, 1), inputs.view(n, cols), {out.data(), n, rows});
        });
        std::printf("%-6s %-12s %5lld %10.1f %8.1f %9.0f\n", quant_info(type).name,
                    isa_name(exec.isa), static_cast<long long>(n), seconds * 1e6,
                    static_cast<double>(bytes) / seconds / 1e9,
                    2.0 * static_cast<double>(rows * cols * n) / seconds / 1e9);
      }
    }
  }
}

// One sequence: 9 heads over 3 KV heads of 64, a decode row or 256 prefill rows.
void bench_attend(ThreadPool& pool, int64_t rows, int64_t context) {
  const int64_t dim = 64, kv_heads = 3, heads = 9, page = 64;
  const int64_t n_pages = context / page;
  Arena arena("kv", 2 * n_pages * page * kv_heads * dim * 2);
  const int64_t half = n_pages * page * kv_heads * dim * 2;
  const KvView cache{
      arena.take(half), arena.take(half), KvType::kF16, n_pages, kv_heads, page, dim};
  std::vector<int32_t> pages;
  for (int32_t p = 0; p < n_pages; ++p) pages.push_back(p);
  std::vector<float> q(static_cast<size_t>(rows * heads * dim), 0.5f), out(q.size());
  const AttendSequence sequence{0, rows, context - rows, pages.data()};
  for (int isa = 1; isa <= static_cast<int>(best_isa()); ++isa) {
    const Exec exec{&pool, static_cast<Isa>(isa)};
    const double seconds = measure(pool, [&] {
      attend(exec, {q.data(), rows, heads * dim}, std::span(&sequence, 1), {heads, 0, 3, 0}, cache,
             0.125f, {out.data(), rows, heads * dim});
    });
    const double flops = 4.0 * static_cast<double>(rows * heads * dim) *
                         (static_cast<double>(context) - static_cast<double>(rows) / 2);
    std::printf("attend %-12s rows %4lld context %6lld %10.1f us %8.1f GB/s of K,V %8.1f GFLOP/s\n",
                isa_name(exec.isa), static_cast<long long>(rows), static_cast<long long>(context),
                seconds * 1e6, 2.0 * static_cast<double>(half) / seconds / 1e9,
                flops / seconds / 1e9);
  }
}

}  // namespace
}  // namespace spillway::cpu

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  const int64_t rows = argc > 2 ? std::atoll(argv[2]) : 8192;
  const int64_t cols = argc > 3 ? std::atoll(argv[3]) : 4096;
  const auto only = argc > 4 ? spillway::quant_type_from_name(argv[4]) : std::nullopt;
  if (threads < 1 || (argc > 4 && !only) || rows < 1 || cols < 32 || cols % 32 != 0) {
    std::fprintf(stderr, "usage: kernels_bench [threads] [rows] [cols, a multiple of 32] [type]\n");
    return 2;
  }
  spillway::ThreadPool pool(threads);
  std::printf("%d thread(s), weights [%lld, %lld]\n", threads, static_cast<long long>(rows),
              static_cast<long long>(cols));
  spillway::cpu::bench_read(pool);
  spillway::cpu::bench_attend(pool, 1, 8192);
  spillway::cpu::bench_attend(pool, 256, 1024);
  spillway::cpu::bench_products(pool, rows, cols, only);
  return 0;
}

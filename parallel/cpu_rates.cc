// See cpu_rates.h.
#include "parallel/cpu_rates.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <numeric>
#include <string>

#include "kernels/core/int_math.h"
#include "kernels/core/seconds.h"
#include "kernels/core/thread_pool.h"
#include "parallel/cgroup.h"
#include "parallel/crossing_lines.h"

namespace spillway {
namespace {

using Clock = std::chrono::steady_clock;

// Whole blocks of every type. Parts of sums have a model's ff for columns: the wider, the slower
// (one row of Q4_K on a Zen 4 core: 2048 columns 28 GB/s, 8192 24).
constexpr int64_t kCols = 2048;
constexpr int64_t kWideCols = 8192;
constexpr int64_t kRows = 128;  // of "many rows"
constexpr size_t kLeastRuns = 3;
constexpr double kMostTimes = 10;  // of the time given, for these
// A run counts as undisturbed when others had its threads' cores for at most so much of it.
constexpr double kDisturbed = 0.05;
// Of the time given, where there are less than kLeastRuns of these. Beside others nobody goes on
// alone.
constexpr double kBusyTimes = 2;
// Of weights that one call reads: as a small model's matrix, but long beside a pool's start.
constexpr int64_t kLeastPiece = int64_t{8} << 20;
constexpr int64_t kPieceOfThread = int64_t{2} << 20;
// Rows of weights in a product of many rows, for each thread.
constexpr int64_t kLeastProductRows = 512;
constexpr int64_t kProductRowsOfThread = 256;
// Attention: four query heads a KV head, as most models have, and tokens in the cache.
constexpr int64_t kGroup = 4;
constexpr int64_t kHeadDim = 64;
constexpr int64_t kTokens = 256;
constexpr int64_t kPageTokens = 32;
constexpr int64_t kFfTimes = 4;  // of dim
constexpr int64_t kSmallDim = 256;
constexpr int64_t kLargeDim = 2048;
constexpr int64_t kManyRows = 64;
constexpr int kPoolStarts = 5;  // a layer's: q k v, attention, o, gate and up, down
constexpr float kEps = 1e-5f;

double thread_seconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// How long this thread could have run and others had its core: the scheduler's own count, which
// leaves out who slept because there was nothing to do. 0 where the kernel does not say.
double kept_waiting_seconds() {
  const std::string text = small_file_text("/proc/thread-self/schedstat");
  const size_t second = text.find(' ');
  return second == std::string::npos ? 0 : 1e-9 * std::atof(text.c_str() + second);
}

// Of all of a pool's threads.
template <typename Seconds>
double pool_sum(ThreadPool& pool, const Seconds& seconds) {
  std::vector<double> of(static_cast<size_t>(pool.size()));
  pool.run([&](int worker) { of[static_cast<size_t>(worker)] = seconds(); });
  return std::accumulate(of.begin(), of.end(), 0.0);
}

double median(std::vector<double>& values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Of runs of body within so many seconds, three at least if they are not much too long: the median
// of those in which no others had the threads' cores, for that is what a job gets that has the
// machine to itself; the best would be the luckiest moment. Where there are not three of these, the
// median of the threads' processor time, which is about what the run would have taken. Beside
// ranks that may be the others, the median of all.
template <typename Body>
double typical_seconds(ThreadPool& pool, double seconds, bool beside, const Body& body) {
  std::vector<double> all;
  std::vector<double> undisturbed;
  std::vector<double> processor;
  const auto begin = Clock::now();
  const auto goes_on = [&](double spent) {
    if (all.empty() || spent < seconds) return true;
    if (all.size() < kLeastRuns) return spent < kMostTimes * seconds;
    return !beside && undisturbed.size() < kLeastRuns && spent < kBusyTimes * seconds;
  };
  while (goes_on(seconds_since(begin))) {
    const double waited = pool_sum(pool, kept_waiting_seconds);
    const double had = pool_sum(pool, thread_seconds);
    const auto start = Clock::now();
    body();
    const double took = seconds_since(start);
    processor.push_back((pool_sum(pool, thread_seconds) - had) / pool.size());
    const double others = pool_sum(pool, kept_waiting_seconds) - waited;
    all.push_back(took);
    if (others <= kDisturbed * took * pool.size()) undisturbed.push_back(took);
  }
  if (undisturbed.size() >= kLeastRuns) return median(undisturbed);
  return median(beside ? all : processor);
}

// `rows` rows of `cols` values, and their codes, for products.
struct Rows {
  std::vector<float> x;
  std::vector<int8_t> q8;
  std::vector<float> scale;
  std::vector<int32_t> sum;

  Rows(int64_t rows, int64_t cols)
      : x(static_cast<size_t>(rows * cols)),
        q8(x.size()),
        scale(x.size() / cpu::kActivationBlock),
        sum(x.size() / cpu::kSumBlock) {
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 251) - 125.0f;
  }
  View2D<float> view(int64_t rows, int64_t cols) { return {x.data(), rows, cols}; }
  cpu::Activations of(int64_t rows, int64_t cols) {
    return {View2D<const float>(x.data(), rows, cols), View2D<int8_t>(q8.data(), rows, cols),
            View2D<float>(scale.data(), rows, cols / cpu::kActivationBlock),
            View2D<int32_t>(sum.data(), rows, cols / cpu::kSumBlock)};
  }
};

}  // namespace

std::vector<QuantType> all_product_types() {
  std::vector<QuantType> types;
  for (uint32_t number = 0; number < 64; ++number) {
    const auto type = quant_type_from_file(number);
    if (type && quant_info(*type).computable) types.push_back(*type);
  }
  return types;
}

// Of products: the input, the output, and where the next weights lie.
struct CpuProbe::Inputs {
  Rows rows{kRows, kCols};
  Rows wide{kRows, kWideCols};
  std::vector<float> out;
  std::vector<double> partial;
  int64_t at = 0;  // byte of the weights

  Inputs(const cpu::Exec& exec, int64_t most_out)
      : out(static_cast<size_t>(most_out)), partial(out.size()) {
    cpu::quantize_rows(exec, rows.of(kRows, kCols));
    cpu::quantize_rows(exec, wide.of(kRows, kWideCols));
  }
  // Of these weights as many rows as there are in so many bytes, the next that lie there.
  PackedMatrix next(std::span<std::byte> memory, QuantType type, int64_t cols, int64_t bytes) {
    const int64_t group = packed_bytes(type, kRowGroup, cols);
    const int64_t n = std::max<int64_t>(1, bytes / group);
    if (at + n * group > static_cast<int64_t>(memory.size())) at = 0;
    const PackedMatrix w{type, n * kRowGroup, cols, memory.data() + at};
    at += n * group;
    return w;
  }
};

// A KV cache of kTokens tokens and queries that see all of it.
struct CpuProbe::Cache {
  int64_t kv_heads;
  std::vector<std::byte> memory;
  std::vector<int32_t> pages;
  std::vector<float> q, out;

  explicit Cache(int threads)
      : kv_heads(2 * threads),
        memory(static_cast<size_t>(2 * kTokens * kv_heads * kHeadDim * 2), std::byte{0x2C}),
        q(static_cast<size_t>(kTokens * kv_heads * kGroup * kHeadDim), 0.125f),
        out(q.size()) {
    for (int32_t page = 0; page < kTokens / kPageTokens; ++page) pages.push_back(page);
  }
  void attend(const cpu::Exec& exec, int64_t rows) {
    std::byte* k = memory.data();
    const KvView view{k,        k + memory.size() / 2, KvType::kF16, kTokens / kPageTokens,
                      kv_heads, kPageTokens,           kHeadDim};
    const AttendSequence sequence{0, rows, kTokens - rows, pages.data()};
    const int64_t heads = kv_heads * kGroup;
    cpu::attend(exec, View2D<const float>(q.data(), rows, heads * kHeadDim), {&sequence, 1},
                {heads, 0, kGroup, 0}, view, {0.125f, 0},
                View2D<float>(out.data(), rows, heads * kHeadDim));
  }
};

// A layer's ops without products and attention.
struct CpuProbe::Layer {
  Rows rows{kManyRows, kLargeDim};
  Rows gated{kManyRows, kLargeDim* kFfTimes};
  CrossingLines lines{kManyRows, kLargeDim, kLargeDim* kFfTimes};
  std::vector<float> weight = std::vector<float>(kLargeDim, 1.0f);
  std::vector<float> residual = std::vector<float>(kManyRows * kLargeDim, 1.0f);
  std::vector<float> gate_up = std::vector<float>(2 * kManyRows * kLargeDim * kFfTimes, 0.5f);
  std::vector<double> sum = std::vector<double>(kManyRows * kLargeDim, 1e-6);

  void run(const cpu::Exec& exec, int64_t n, int64_t dim) {
    const int64_t ff = kFfTimes * dim;
    const View2D<float> x(residual.data(), n, dim);
    const View2D<const double> partial(sum.data(), n, dim);
    for (int half = 0; half < 2; ++half) {
      cpu::rms_norm(exec, x, std::span(weight).first(static_cast<size_t>(dim)), kEps,
                    rows.view(n, dim));
      cpu::quantize_rows(exec, rows.of(n, dim));
      if (half == 0) {
        cpu::quantize_rows(exec, rows.of(n, dim));  // what attention gave
      } else {
        cpu::swiglu(exec, View2D<const float>(gate_up.data(), n, 2 * ff), gated.view(n, ff));
        cpu::quantize_rows(exec, gated.of(n, ff));
      }
      cpu::add_residual(exec, partial, x);
    }
    for (int start = 0; start < kPoolStarts && exec.pool->size() > 1; ++start) {
      exec.pool->run([](int) {});
    }
  }
};

CpuProbe::CpuProbe(const cpu::Exec& exec, const ReadBuffer& weights)
    : exec_(exec), weights_(weights) {
  int64_t most = 0;
  for (const QuantType type : all_product_types()) {
    const int64_t bytes = std::max(kLeastPiece, kPieceOfThread * exec.pool->size());
    most = std::max(most, bytes / packed_bytes(type, kRowGroup, kCols) * kRowGroup);
  }
  const int64_t products =
      kRows * std::max(kLeastProductRows, kProductRowsOfThread * exec.pool->size());
  inputs_ = std::make_unique<Inputs>(exec, std::max(most, products));
  cache_ = std::make_unique<Cache>(exec.pool->size());
  layer_ = std::make_unique<Layer>();
}

CpuProbe::~CpuProbe() = default;

int CpuProbe::slices(std::span<const QuantType> types) {
  return 2 * static_cast<int>(types.size()) + 2;
}

CpuRates CpuProbe::measure(int threads, std::span<const QuantType> types, double seconds,
                           bool beside, const std::function<void()>& before) {
  CpuRates rates;
  rates.threads = threads;
  for (const QuantType type : types) {
    ProductRate rate;
    rate.type = type;
    before();
    rate.row_gb_per_s = row_gb_per_s(type, seconds, beside);
    before();
    rate.gop_per_s = gop_per_s(type, seconds, beside);
    rates.products.push_back(rate);
  }
  before();
  attend(rates, seconds, beside);
  before();
  other_ops(rates, seconds, beside);
  return rates;
}

// A third of the products are parts of sums over ranks: attention's and feed-forward's outputs.
CpuProbe::Took CpuProbe::products(QuantType type, int64_t rows, int64_t bytes, double seconds,
                                  bool beside) {
  Inputs& in = *inputs_;
  const std::span<std::byte> memory = weights_.memory();
  bytes = std::min<int64_t>(bytes, static_cast<int64_t>(memory.size()) / 4);
  const cpu::Activations input = in.rows.of(rows, kCols);
  const cpu::Activations wide = in.wide.of(rows, kWideCols);
  Took took;
  const auto begin = Clock::now();
  const double waited = pool_sum(*exec_.pool, kept_waiting_seconds);
  took.seconds = typical_seconds(*exec_.pool, seconds, beside, [&] {
    took.bytes = took.products = 0;
    const auto count = [&](const PackedMatrix& w) {
      took.bytes += static_cast<double>(packed_bytes(w.type, w.rows, w.cols));
      took.products += static_cast<double>(w.rows * w.cols * rows);
    };
    for (int i = 0; i < 2; ++i) {
      const PackedMatrix w = in.next(memory, type, kCols, bytes);
      cpu::matmul(exec_, {&w, 1}, input, View2D<float>(in.out.data(), rows, w.rows));
      count(w);
    }
    const PackedMatrix w = in.next(memory, type, kWideCols, bytes);
    cpu::matmul_partial(exec_, w, wide, View2D<double>(in.partial.data(), rows, w.rows));
    count(w);
  });
  busy_.lost_s += pool_sum(*exec_.pool, kept_waiting_seconds) - waited;
  busy_.wanted_s += seconds_since(begin) * exec_.pool->size();
  return took;
}

double CpuProbe::row_gb_per_s(QuantType type, double seconds, bool beside) {
  const int64_t bytes = std::max(kLeastPiece, kPieceOfThread * exec_.pool->size());
  const Took took = products(type, 1, bytes, seconds, beside);
  return 1e-9 * took.bytes / took.seconds;
}

double CpuProbe::gop_per_s(QuantType type, double seconds, bool beside) {
  const int64_t rows = std::max(kLeastProductRows, kProductRowsOfThread * exec_.pool->size());
  const Took took = products(type, kRows, packed_bytes(type, rows, kCols), seconds, beside);
  return 1e-9 * took.products / took.seconds;
}

void CpuProbe::attend(CpuRates& rates, double seconds, bool beside) {
  constexpr int kCalls = 4;
  const double row = typical_seconds(*exec_.pool, seconds / 2, beside, [&] {
    for (int call = 0; call < kCalls; ++call) cache_->attend(exec_, 1);
  });
  const int64_t bytes = kCalls * 2 * kTokens * cache_->kv_heads * kHeadDim * 2;
  rates.attend_gb_per_s = 1e-9 * static_cast<double>(bytes) / row;
  const double many =
      typical_seconds(*exec_.pool, seconds / 2, beside, [&] { cache_->attend(exec_, kTokens); });
  const int64_t pairs = kTokens * (kTokens + 1) / 2;
  const int64_t products = 2 * pairs * cache_->kv_heads * kGroup * kHeadDim;
  rates.attend_gop_per_s = 1e-9 * static_cast<double>(products) / many;
}

void CpuProbe::other_ops(CpuRates& rates, double seconds, bool beside) {
  constexpr int kCalls = 8;
  const auto run_ns = [&](int64_t rows, double limit, const auto& layer) {
    const int calls = rows == 1 ? kCalls : 1;
    const double took = typical_seconds(*exec_.pool, limit, beside, [&] {
      for (int call = 0; call < calls; ++call) layer();
    });
    return 1e9 / calls * took;
  };
  const auto layer_ns = [&](int64_t rows, int64_t dim) {
    const double ops = run_ns(rows, seconds / 3, [&] { layer_->run(exec_, rows, dim); });
    if (exec_.pool->size() == 1) return ops;
    const auto lines_ns = [&](bool by_columns) {
      // Longer: what counts is a difference.
      return run_ns(rows, 2 * seconds,
                    [&] { layer_->lines.run(exec_, rows, dim, kFfTimes * dim, by_columns); });
    };
    return ops + std::max(0.0, lines_ns(true) - lines_ns(false));
  };
  constexpr double kSmall = kSmallDim * (1 + kFfTimes);
  constexpr double kLarge = kLargeDim * (1 + kFfTimes);
  const double small = layer_ns(1, kSmallDim);
  const double large = layer_ns(1, kLargeDim);
  const double many = layer_ns(kManyRows, kLargeDim);
  rates.row_value_ns = std::max(0.0, (large - small) / (kLarge - kSmall));
  const double rest = std::max(0.0, small - rates.row_value_ns * kSmall);
  rates.layer_us = 1e-3 * rest;
  rates.value_ns = std::max(0.0, (many - rest) / (kManyRows * kLarge));
}

}  // namespace spillway

// See host_reads.h.
#include "parallel/host_reads.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <utility>

#include "kernels/core/check.h"
#include "kernels/core/int_math.h"
#include "kernels/core/seconds.h"

namespace spillway {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kMostBytes = int64_t{512} << 20;  // beyond the caches of two sockets
constexpr int64_t kLeastBytes = int64_t{16} << 20;
constexpr double kAloneSeconds = 0.15;
constexpr double kBesideSeconds = 0.25;
constexpr int kLeastRuns = 2;
// As f16 0.065, as f32 2e-12, as a code 44: an ordinary number to every type of weights.
constexpr uint64_t kWord = 0x2C2C2C2C2C2C2C2C;

// Words are shared out in blocks of so many: a few pages, so that a piece of 32 MiB has many.
constexpr int64_t kBlockWords = 2048;

// Eight sums side by side: enough loads in flight for plain vector code to reach memory speed.
uint64_t sum_words(const uint64_t* words, int64_t n) {
  uint64_t sums[8] = {};
  for (int64_t i = 0; i + 8 <= n; i += 8) {
    for (int64_t j = 0; j < 8; ++j) sums[j] += words[i + j];
  }
  uint64_t sum = 0;
  for (const uint64_t s : sums) sum += s;
  return sum;
}

// Of all pieces that are read within so many seconds.
std::vector<double> piece_rates(ReadBuffer& buffer, int n_threads, double seconds) {
  std::vector<double> rates;
  const auto begin = Clock::now();
  for (int run = 0; run < kLeastRuns || seconds_since(begin) < seconds; ++run) {
    buffer.read(n_threads, &rates);
  }
  return rates;
}

double median_of(std::vector<double> rates) {
  std::sort(rates.begin(), rates.end());
  return rates[rates.size() / 2];
}

// The pieces that were read while the bus was busy; the last few may end a little later.
void beside(ReadBuffer& buffer, int n_threads, const BusLoad& bus, HostRead& read) {
  bus.start(kBesideSeconds);
  std::vector<double> rates;
  while (rates.empty() || bus.running()) buffer.read(n_threads, &rates);
  read.beside_bus_gb_per_s = std::min(read.gb_per_s, median_of(std::move(rates)));
  read.bus_gb_per_s = bus.finish();
}

}  // namespace

ReadBuffer::ReadBuffer(const cpu::Exec& exec, int64_t bytes)
    : exec_(exec),
      n_words_(round_up(bytes / 8, kBlockWords)),
      memory_("probe", 8 * n_words_),
      words_(memory_.take_array<uint64_t>(n_words_)) {
  for (int piece = 0; piece < n_pieces(); ++piece) {
    const Range blocks = blocks_of(piece);
    exec_.pool->run([&](int worker) {
      const Range mine = exec_.pool->part(worker, blocks.size());
      uint64_t* from = words_ + blocks.begin * kBlockWords;
      std::fill(from + mine.begin * kBlockWords, from + mine.end * kBlockWords, kWord);
    });
  }
}

Range ReadBuffer::blocks_of(int piece) const {
  const int64_t blocks = n_words_ / kBlockWords;
  return {blocks * piece / n_pieces(), blocks * (piece + 1) / n_pieces()};
}

void ReadBuffer::read(int n_threads, std::vector<double>* rates) {
  CHECK(n_threads >= 1 && n_threads <= exec_.pool->size());
  std::atomic<uint64_t> total{0};
  for (int piece = 0; piece < n_pieces(); ++piece) {
    const Range blocks = blocks_of(piece);
    const auto start = Clock::now();
    exec_.pool->share(blocks.size(), n_threads, [&](Range part) {
      const uint64_t* from = words_ + (blocks.begin + part.begin) * kBlockWords;
      total += sum_words(from, part.size() * kBlockWords);
    });
    const double gb = 8e-9 * static_cast<double>(blocks.size() * kBlockWords);
    if (rates != nullptr) rates->push_back(gb / seconds_since(start));
  }
  // Also keeps the compiler from dropping the reads.
  CHECK_EQ(total.load(), static_cast<uint64_t>(n_words_) * kWord);
}

double best_read_gb_per_s(ReadBuffer& buffer, int n_threads, double seconds) {
  const std::vector<double> rates = piece_rates(buffer, n_threads, seconds);
  return *std::max_element(rates.begin(), rates.end());
}

int64_t read_buffer_bytes(int64_t free_bytes) {
  return std::max(kLeastBytes, std::min(kMostBytes, free_bytes / 16));
}

HostRead measure_together(ReadBuffer& buffer, int threads, double seconds, const BusLoad& bus) {
  HostRead read;
  read.threads = threads;
  read.gb_per_s = median_of(piece_rates(buffer, buffer.n_threads(), seconds));
  if (bus.start) beside(buffer, buffer.n_threads(), bus, read);
  return read;
}

std::vector<HostRead> measure_host_reads(const cpu::Exec& exec, int64_t free_bytes,
                                         const BusLoad& bus) {
  ReadBuffer buffer(exec, read_buffer_bytes(free_bytes));
  std::vector<int> threads = {1, exec.pool->size() / 2, exec.pool->size()};
  std::erase(threads, 0);
  threads.erase(std::unique(threads.begin(), threads.end()), threads.end());
  std::vector<HostRead> reads;
  for (const int n : threads) {
    HostRead read;
    read.threads = n;
    read.gb_per_s = best_read_gb_per_s(buffer, n, kAloneSeconds);
    if (bus.start) beside(buffer, n, bus, read);
    reads.push_back(read);
  }
  return reads;
}

}  // namespace spillway

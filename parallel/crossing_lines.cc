// See crossing_lines.h.
#include "parallel/crossing_lines.h"

#include <algorithm>
#include <cstring>

#include "kernels/core/check.h"
#include "kernels/core/int_math.h"
#include "kernels/core/thread_pool.h"

namespace spillway {
namespace {

constexpr int64_t kLine = 64;
constexpr int64_t kTile = 6;  // rows that a product takes together

// Lines of a matrix of bytes, whose rows lie side by side.
struct Lines {
  std::byte* data = nullptr;
  int64_t row_bytes = 0;

  // A word of every line, some rows side by side, as products do.
  void read(Range rows, Range columns) const {
    uint64_t sum = 0;
    for (int64_t first = rows.begin; first < rows.end; first += kTile) {
      const int64_t end = std::min(first + kTile, rows.end);
      for (int64_t at = columns.begin; at < columns.end; at += kLine) {
        for (int64_t row = first; row < end; ++row) {
          uint64_t word = 0;
          std::memcpy(&word, data + row * row_bytes + at, sizeof(word));
          sum += word;
        }
      }
    }
    keep(sum);
  }
  // Whole lines, all rows of one column of them before the next, as products do.
  void write(Range rows, Range columns) const {
    for (int64_t at = columns.begin; at < columns.end; at += kLine) {
      for (int64_t row = rows.begin; row < rows.end; ++row) {
        std::memset(data + row * row_bytes + at, static_cast<int>(row & 0x7F), kLine);
      }
    }
  }

 private:
  // The compiler must not drop what nobody looks at.
  static void keep(uint64_t sum) { asm volatile("" : : "r"(sum) : "memory"); }
};

int64_t whole_lines(int64_t bytes) { return round_up(bytes, kLine); }

constexpr int64_t kF32 = 4;
constexpr int64_t kF64 = 8;
// 8 bits a value, a scale for 32 and a sum for 16.
int64_t code_bytes(int64_t values) {
  return values + values / cpu::kActivationBlock * kF32 + values / cpu::kSumBlock * kF32;
}
// What each of two cores reads for attention of a step's own rows: half of the queries, which lie
// in f32, and all keys and values, in f16, with four query heads to one of theirs.
int64_t attended_bytes(int64_t dim) { return 3 * dim; }

}  // namespace

CrossingLines::CrossingLines(int64_t rows, int64_t dim, int64_t ff)
    : codes_(static_cast<size_t>(
          rows * whole_lines(std::max({attended_bytes(dim), code_bytes(dim), code_bytes(ff)})))),
      out_(static_cast<size_t>(rows * whole_lines(std::max(8 * dim, 8 * ff)))) {}

// The codes are written by rows, read for every column; the output the other way round.
void CrossingLines::product(const cpu::Exec& exec, int64_t rows, int64_t in_bytes,
                            int64_t out_bytes, bool by_columns) {
  const Lines in{codes_.data(), whole_lines(in_bytes)};
  const Lines out{out_.data(), whole_lines(out_bytes)};
  CHECK_LE(rows * in.row_bytes, static_cast<int64_t>(codes_.size()));
  CHECK_LE(rows * out.row_bytes, static_cast<int64_t>(out_.size()));
  ThreadPool& pool = *exec.pool;
  const Range all = {0, rows};
  pool.run([&](int worker) { in.write(pool.part(worker, rows), {0, in.row_bytes}); });
  pool.run([&](int worker) {
    const Range mine = pool.part(worker, rows);
    if (by_columns) {
      in.read(all, {0, in.row_bytes});
      out.write(all, pool.part(worker, out.row_bytes, kLine));
      return;
    }
    for (int other = 0; other < pool.size(); ++other) in.read(mine, {0, in.row_bytes});
    out.write(mine, {0, out.row_bytes});
  });
  pool.run([&](int worker) { out.read(pool.part(worker, rows), {0, out.row_bytes}); });
}

void CrossingLines::run(const cpu::Exec& exec, int64_t rows, int64_t dim, int64_t ff,
                        bool by_columns) {
  const auto times = [&](int64_t in_bytes, int64_t out_bytes) {
    product(exec, rows, in_bytes, out_bytes, by_columns);
  };
  times(code_bytes(dim), kF32 * dim * 3 / 2);  // q, k and v
  times(attended_bytes(dim), kF32 * dim);      // attention, which is divided otherwise, too
  times(code_bytes(dim), kF64 * dim);          // o
  times(code_bytes(dim), kF32 * 2 * ff);       // gate and up
  times(code_bytes(ff), kF64 * dim);           // down
}

}  // namespace spillway

// Sequences with pages dealt in a random order, whose cache holds NaN wherever no token lies; the
// step on the device; and softmax by its definition, in double.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/support/cuda_fixtures.h"
#include "tests/support/kernel_fixtures.h"

namespace spillway::cuda_test {

struct AttendShape {
  int64_t heads, group, first_head, kv_heads, first_kv, dim, page_tokens;
  KvType type = KvType::kF16;
};

inline const std::vector<AttendShape>& attend_shapes() {
  static const std::vector<AttendShape> all = {
      {9, 3, 0, 3, 0, 64, 16},                 // SmolLM2 whole
      {2, 3, 4, 1, 1, 64, 16},                 // heads 4 and 5, inside one group
      {4, 3, 2, 2, 0, 48, 32},                 // a cut through two groups; padded
      {4, 4, 4, 2, 0, 32, 32, KvType::kF32},   // a KV head here that no query reads
      {32, 4, 0, 8, 0, 128, 64},               // Llama 3 8B
      {8, 8, 0, 1, 0, 128, 32},                // Llama 3 70B on one of eight ranks
      {7, 7, 0, 1, 0, 64, 16},                 // Qwen 2.5
      {2, 1, 0, 2, 0, 80, 16},                 // no grouping
      {4, 2, 0, 2, 0, 96, 48},                 // pages that are no power of two
      {4, 4, 0, 1, 0, 256, 16},                // Gemma 3
      {12, 12, 0, 1, 0, 128, 16},              // more than 8 heads
      {20, 20, 0, 1, 0, 256, 16},              // more than 16
      {16, 16, 0, 1, 0, 16, 16},               // the smallest head
      {2, 1, 0, 2, 0, 112, 16},                // padded to 128
      {3, 3, 0, 1, 0, 240, 64, KvType::kF32},  // padded to 256
      {6, 6, 0, 1, 0, 128, 16, KvType::kF32},
      {9, 3, 0, 3, 0, 64, 16, KvType::kQ8_0},
      {8, 4, 0, 2, 0, 128, 32, KvType::kQ8_0},
      {2, 3, 4, 1, 1, 96, 48, KvType::kQ8_0},
      {4, 4, 0, 1, 0, 256, 16, KvType::kQ8_0},
      {2, 1, 0, 2, 0, 32, 64, KvType::kQ8_0},
      {12, 12, 0, 1, 0, 128, 16, KvType::kQ8_0},
      {3, 3, 0, 1, 0, 160, 16, KvType::kQ8_0},
      {9, 3, 0, 3, 0, 64, 16, KvType::kQ4_0},
      {8, 4, 0, 2, 0, 128, 32, KvType::kQ4_0},
      {2, 3, 4, 1, 1, 96, 48, KvType::kQ4_0},
      {4, 4, 0, 1, 0, 256, 16, KvType::kQ4_0},
      {2, 1, 0, 2, 0, 32, 64, KvType::kQ4_0},
      {12, 12, 0, 1, 0, 128, 16, KvType::kQ4_0},
      {3, 3, 0, 1, 0, 160, 16, KvType::kQ4_0},
  };
  return all;
}

struct Tokens {
  int64_t before;
  int64_t n;
};

struct AttendCase {
  AttendShape shape;
  HeadMap heads;
  std::vector<std::byte> k, v;
  KvView cache;  // on the host
  std::vector<std::vector<int32_t>> pages;
  std::vector<AttendSequence> sequences;
  std::vector<cuda::SequenceRows> rows_of;
  std::vector<int32_t> page_list;
  std::vector<float> q;
  int64_t rows = 0;
  int64_t most_rows = 0;
  int64_t most_context = 0;
  float scale;
  int64_t window = 0;

  // room: tokens that every sequence's page list holds beyond its own. whole: the cache holds the
  // step's own tokens too.
  AttendCase(std::mt19937& random, const AttendShape& s, const std::vector<Tokens>& runs,
             int64_t room = 0, bool whole = true)
      : shape(s),
        heads{s.heads, s.first_head, s.group, s.first_kv},
        scale(1 / std::sqrt(static_cast<float>(s.dim))) {
    int64_t n_pages = 2;  // two that nobody has
    for (const Tokens& run : runs) n_pages += div_up(run.before + run.n + room, s.page_tokens);
    std::vector<int32_t> order(static_cast<size_t>(n_pages));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random);
    auto next = order.begin();
    for (const Tokens& run : runs) {
      const int64_t count = div_up(run.before + run.n + room, s.page_tokens);
      pages.emplace_back(next, next + count);
      next += count;
    }
    for (size_t i = 0; i < runs.size(); ++i) {
      rows_of.push_back({static_cast<int32_t>(rows), static_cast<int32_t>(runs[i].n),
                         static_cast<int32_t>(runs[i].before),
                         static_cast<int32_t>(page_list.size())});
      page_list.insert(page_list.end(), pages[i].begin(), pages[i].end());
      sequences.push_back({rows, runs[i].n, runs[i].before, pages[i].data()});
      rows += runs[i].n;
      most_rows = std::max(most_rows, runs[i].n);
      most_context = std::max(most_context, runs[i].before + runs[i].n + room);
    }
    const int64_t bytes = n_pages * s.kv_heads * s.page_tokens * kv_row_bytes(s.type, s.dim);
    k.assign(static_cast<size_t>(bytes), std::byte{0xff});
    v = k;
    cache = {k.data(), v.data(), s.type, n_pages, s.kv_heads, s.page_tokens, s.dim};
    for (size_t i = 0; i < runs.size(); ++i) {
      write_tokens(random, i, runs[i].before + (whole ? runs[i].n : 0));
    }
    q = kernel_test::random_floats(random, rows * s.heads * s.dim, 2.0f);
  }
  AttendCase(const AttendCase&) = delete;

  // Of a cache of halves or floats.
  size_t element(size_t sequence, int64_t kv, int64_t position, int64_t d) const {
    const int64_t page = pages[sequence][static_cast<size_t>(position / shape.page_tokens)];
    return static_cast<size_t>(
        ((page * shape.kv_heads + kv) * shape.page_tokens + position % shape.page_tokens) *
            shape.dim +
        d);
  }

  int64_t slot(size_t sequence, int64_t position) const {
    return int64_t{pages[sequence][static_cast<size_t>(position / shape.page_tokens)]} *
               shape.page_tokens +
           position % shape.page_tokens;
  }

  // New keys and values of a sequence's first n tokens, by the CPU's kv_write.
  void write_tokens(std::mt19937& random, size_t sequence, int64_t n) {
    if (n == 0) return;
    const int64_t width = shape.kv_heads * shape.dim;
    std::vector<float> new_k = kernel_test::random_floats(random, n * width);
    std::vector<float> new_v = kernel_test::random_floats(random, n * width);
    // The device takes floats as halves.
    for (float& x : new_k) x = f16_to_f32(f32_to_f16(x));
    for (float& x : new_v) x = f16_to_f32(f32_to_f16(x));
    std::vector<int64_t> slots;
    for (int64_t t = 0; t < n; ++t) slots.push_back(slot(sequence, t));
    ThreadPool pool(1);
    cpu::kv_write({&pool, cpu::best_isa()}, {new_k.data(), n, width}, {new_v.data(), n, width},
                  slots, cache);
  }

  // What a token's value is, from the bytes, as kernels/core/kv_view.h describes them.
  double value(const std::vector<std::byte>& plane, size_t sequence, int64_t kv, int64_t position,
               int64_t d) const {
    const int64_t page = pages[sequence][static_cast<size_t>(position / shape.page_tokens)];
    const int64_t token = position % shape.page_tokens;
    const int64_t blocks = shape.dim / 32;
    const int64_t codes = shape.type == KvType::kQ8_0 ? shape.dim : shape.dim / 2;
    uint16_t half;
    float full;
    if (shape.type == KvType::kF32) {
      std::memcpy(&full, &plane[4 * element(sequence, kv, position, d)], 4);
      return static_cast<double>(full);
    }
    if (shape.type == KvType::kF16) {
      std::memcpy(&half, &plane[2 * element(sequence, kv, position, d)], 2);
      return static_cast<double>(f16_to_f32(half));
    }
    const std::byte* start = &plane[static_cast<size_t>((page * shape.kv_heads + kv) *
                                                        shape.page_tokens * (codes + 2 * blocks))];
    std::memcpy(&half, start + shape.page_tokens * codes + 2 * (token * blocks + d / 32), 2);
    const double step = static_cast<double>(f16_to_f32(half));
    if (shape.type == KvType::kQ8_0) return step * static_cast<int8_t>(start[token * codes + d]);
    const auto pair = static_cast<int>(start[token * codes + d / 32 * 16 + d % 16]);
    return step * ((d % 32 < 16 ? pair & 15 : pair >> 4) - 8);
  }

  int64_t cols() const { return shape.heads * shape.dim; }

  std::vector<double> reference(size_t sequence, int64_t row, int64_t head) const {
    const AttendSequence& s = sequences[sequence];
    const int64_t kv = (shape.first_head + head) / shape.group - shape.first_kv;
    const int64_t tokens = s.first_position + row + 1;
    const int64_t first = window > 0 ? std::max<int64_t>(0, tokens - window) : 0;
    const auto q_at = static_cast<size_t>((s.first_row + row) * cols() + head * shape.dim);
    std::vector<double> weights;
    for (int64_t t = first; t < tokens; ++t) {
      double dot = 0;
      for (int64_t d = 0; d < shape.dim; ++d) {
        dot += static_cast<double>(q[q_at + static_cast<size_t>(d)]) * value(k, sequence, kv, t, d);
      }
      weights.push_back(dot * static_cast<double>(scale));
    }
    const double maximum = *std::max_element(weights.begin(), weights.end());
    double total = 0;
    for (double& w : weights) total += w = std::exp(w - maximum);
    std::vector<double> out(static_cast<size_t>(shape.dim), 0.0);
    for (int64_t t = first; t < tokens; ++t) {
      for (int64_t d = 0; d < shape.dim; ++d) {
        out[static_cast<size_t>(d)] +=
            weights[static_cast<size_t>(t - first)] / total * value(v, sequence, kv, t, d);
      }
    }
    return out;
  }
};

// A workspace of attend, poisoned where it may be.
inline std::vector<std::byte> attend_workspace(int64_t bytes) {
  std::vector<std::byte> workspace(static_cast<size_t>(bytes), std::byte{0xff});
  const int64_t counters = std::min(bytes, cuda::kAttendCounterBytes);
  std::fill_n(workspace.begin(), counters, std::byte{0});
  return workspace;
}

// A case's memory on the device, outputs poisoned.
struct AttendOnDevice {
  Runner& runner;
  const AttendCase& c;
  OnDevice<std::byte> k, v;
  OnDevice<cuda::SequenceRows> sequences;
  OnDevice<int32_t> pages;
  OnDevice<float> q;
  OnDevice<std::byte> workspace;
  OnDevice<float> x;
  OnDevice<int8_t> q8;
  OnDevice<cuda::ActivationBlock> blocks;
  OnDevice<uint16_t> bf16;

  AttendOnDevice(Runner& r, const AttendCase& in)
      : runner(r),
        c(in),
        k(in.k),
        v(in.v),
        sequences(in.rows_of),
        pages(in.page_list),
        q(in.q),
        workspace(attend_workspace(cuda::attend_workspace_bytes(
            r.exec, in.rows, static_cast<int64_t>(in.rows_of.size()), in.shape.heads,
            in.shape.kv_heads, in.shape.dim, in.most_context))),
        x(in.rows * in.cols()),
        q8(cuda::padded_rows(in.rows) * in.cols()),
        blocks(cuda::padded_rows(in.rows) * in.cols() / 32),
        bf16(in.rows * in.cols()) {}

  KvView cache() const {
    KvView cache = c.cache;
    cache.k = k.data();
    cache.v = v.data();
    return cache;
  }
  cuda::StepRows step() const {
    return {sequences.data(), pages.data(), static_cast<int64_t>(c.rows_of.size()),
            c.rows,           c.most_rows,  c.most_context};
  }
  cuda::Input out() const {
    return {c.rows, c.cols(), x.data(), q8.data(), blocks.data(), bf16.data()};
  }
  void launch(unsigned forms) const {
    cuda::attend(runner.exec, {q.data(), c.rows, c.cols()}, step(), c.heads, cache(),
                 {c.scale, c.window}, workspace.data(), forms, out());
  }
  // As every call must leave them.
  bool counters_are_zero() const {
    const std::vector<std::byte> all = workspace.values();
    const int64_t n = std::min(static_cast<int64_t>(all.size()), cuda::kAttendCounterBytes);
    return std::all_of(all.begin(), all.begin() + n, [](std::byte b) { return b == std::byte{0}; });
  }
  std::vector<float> run(unsigned forms = cuda::kFloatForm) const {
    launch(forms);
    runner.wait();
    return x.values();
  }
};

inline std::string describe(const AttendCase& c) {
  const AttendShape& s = c.shape;
  return "heads " + std::to_string(s.first_head) + "+" + std::to_string(s.heads) + " group " +
         std::to_string(s.group) + " dim " + std::to_string(s.dim) + " pages of " +
         std::to_string(s.page_tokens) + " window " + std::to_string(c.window) + " rows " +
         std::to_string(c.rows);
}

// The root mean square of a head's error against softmax in double, relative to that of the head:
// at most 1e-3 for a sequence with one row (weights are rounded to halves) and 3e-3 for others (Q
// too); 1e-3 more for blocks of codes, whose products with their scale are. No value is off by more
// than four times that. Where little is summed and heads are small, errors do not average out: the
// worst seen are 3e-4 for one row, 2.2e-3 for several, 1e-3 for one row over blocks.
inline void expect_softmax(const AttendCase& c, const std::vector<float>& out) {
  for (size_t s = 0; s < c.sequences.size(); ++s) {
    const double tolerance =
        (c.sequences[s].n_rows == 1 ? 1e-3 : 3e-3) + (kv_quantized(c.shape.type) ? 1e-3 : 0.0);
    for (int64_t row = 0; row < c.sequences[s].n_rows; ++row) {
      for (int64_t head = 0; head < c.shape.heads; ++head) {
        const std::vector<double> exact = c.reference(s, row, head);
        const auto at =
            static_cast<size_t>((c.sequences[s].first_row + row) * c.cols() + head * c.shape.dim);
        double squares = 0;
        double errors = 0;
        double worst = 0;
        for (size_t d = 0; d < exact.size(); ++d) {
          const double error = static_cast<double>(out[at + d]) - exact[d];
          squares += exact[d] * exact[d];
          errors += error * error;
          worst = std::isnan(error) ? error : std::max(worst, std::abs(error));
        }
        const auto n = static_cast<double>(exact.size());
        const double rms = std::sqrt(squares / n);
        ASSERT_LE(std::sqrt(errors / n), tolerance * rms)
            << describe(c) << " sequence " << s << " of " << c.sequences[s].first_position << "+"
            << c.sequences[s].n_rows << " row " << row << " head " << head;
        ASSERT_LE(worst, 4 * tolerance * rms) << describe(c) << " sequence " << s << " row " << row;
      }
    }
  }
}

}  // namespace spillway::cuda_test

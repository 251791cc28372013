// Attention against a softmax in double, over every shape that the paging, the head map and the
// tiles can take, and with bits that depend on a query's own tokens only; then top_k.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "tests/support/kernel_fixtures.h"

namespace spillway {
namespace {

struct Shape {
  int64_t heads, group, first_head, kv_heads, first_kv, dim, page_tokens;
  KvType type;
};

// Sequences of (tokens before, rows) with pages dealt in a random order.
struct Case {
  Shape shape;
  std::vector<std::byte> k, v;
  KvView cache;
  std::vector<std::vector<int32_t>> pages;
  std::vector<AttendSequence> sequences;
  std::vector<float> q;
  int64_t rows = 0;
  int64_t window = 0;
  HeadMap heads;

  Case(std::mt19937& random, const Shape& s, const std::vector<std::pair<int64_t, int64_t>>& runs)
      : shape(s), heads{s.heads, s.first_head, s.group, s.first_kv} {
    int64_t n_pages = 2;  // two that nobody has
    for (const auto& [before, n] : runs) n_pages += div_up(before + n, s.page_tokens);
    std::vector<int32_t> order(static_cast<size_t>(n_pages));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random);
    size_t next = 0;
    for (const auto& [before, n] : runs) {
      const auto count = static_cast<size_t>(div_up(before + n, s.page_tokens));
      pages.emplace_back(order.begin() + static_cast<int64_t>(next),
                         order.begin() + static_cast<int64_t>(next + count));
      next += count;
    }
    for (size_t i = 0; i < runs.size(); ++i) {
      sequences.push_back({rows, runs[i].second, runs[i].first, pages[i].data()});
      rows += runs[i].second;
    }
    const int64_t values = n_pages * s.kv_heads * s.page_tokens * s.dim;
    fill(random, k, values);
    fill(random, v, values);
    cache = {k.data(), v.data(), s.type, n_pages, s.kv_heads, s.page_tokens, s.dim};
    q = kernel_test::random_floats(random, rows * s.heads * s.dim, 2.0f);
  }

  // Rows of random values go through kv_write, whose bytes row_ops_test.cc looks at.
  void fill(std::mt19937& random, std::vector<std::byte>& to, int64_t n) const {
    to.resize(static_cast<size_t>(n / shape.dim * kv_row_bytes(shape.type, shape.dim)));
    const int64_t tokens = n / (shape.kv_heads * shape.dim);
    const std::vector<float> values = kernel_test::random_floats(random, n);
    std::vector<int64_t> slots(static_cast<size_t>(tokens));
    std::iota(slots.begin(), slots.end(), 0);
    ThreadPool pool(1);
    const View2D<const float> view(values.data(), tokens, shape.kv_heads * shape.dim);
    cpu::kv_write({&pool, cpu::Isa::kScalar}, view, view, slots,
                  {to.data(), to.data(), shape.type, tokens / shape.page_tokens, shape.kv_heads,
                   shape.page_tokens, shape.dim});
  }

  double value(const std::vector<std::byte>& from, size_t sequence, int64_t kv, int64_t position,
               int64_t d) const {
    const int64_t page = pages[sequence][static_cast<size_t>(position / shape.page_tokens)];
    const int64_t token = position % shape.page_tokens;
    const int64_t row_bytes = kv_row_bytes(shape.type, shape.dim);
    const std::byte* start =
        &from[static_cast<size_t>((page * shape.kv_heads + kv) * shape.page_tokens * row_bytes)];
    if (shape.type == KvType::kF32) {
      float full;
      std::memcpy(&full, start + 4 * (token * shape.dim + d), 4);
      return static_cast<double>(full);
    }
    const bool half_values = shape.type == KvType::kF16;
    const int64_t codes = shape.type == KvType::kQ8_0 ? shape.dim : shape.dim / 2;
    uint16_t half;
    std::memcpy(
        &half,
        start + (half_values ? 2 * (token * shape.dim + d)
                             : shape.page_tokens * codes + 2 * (token * (shape.dim / 32) + d / 32)),
        2);
    const double scale = static_cast<double>(f16_to_f32(half));
    if (half_values) return scale;
    if (shape.type == KvType::kQ8_0) return scale * static_cast<int8_t>(start[token * codes + d]);
    const auto pair = static_cast<int>(start[token * codes + d / 32 * 16 + d % 16]);
    return scale * ((d % 32 < 16 ? pair & 15 : pair >> 4) - 8);
  }

  std::vector<float> run(const cpu::Exec& exec, std::span<const AttendSequence> which) const {
    std::vector<float> out(q.size(), std::nanf(""));
    const int64_t cols = shape.heads * shape.dim;
    cpu::attend(exec, {q.data(), rows, cols}, which, heads, cache, {0.3f, window},
                {out.data(), rows, cols});
    return out;
  }
  std::vector<float> run(const cpu::Exec& exec) const { return run(exec, sequences); }

  // Softmax of one query by the definition.
  std::vector<double> reference(size_t sequence, int64_t row, int64_t head) const {
    const AttendSequence& s = sequences[sequence];
    const int64_t kv = (shape.first_head + head) / shape.group - shape.first_kv;
    const int64_t tokens = s.first_position + row + 1;
    const int64_t first = window > 0 ? std::max<int64_t>(0, tokens - window) : 0;
    const auto q_at = static_cast<size_t>(((s.first_row + row) * shape.heads + head) * shape.dim);
    std::vector<double> weights;
    for (int64_t t = first; t < tokens; ++t) {
      double dot = 0;
      for (int64_t d = 0; d < shape.dim; ++d) {
        dot += static_cast<double>(q[q_at + static_cast<size_t>(d)]) * value(k, sequence, kv, t, d);
      }
      weights.push_back(dot * static_cast<double>(0.3f));
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

const std::vector<Shape>& shapes() {
  static const std::vector<Shape> all = {
      {9, 3, 0, 3, 0, 64, 16, KvType::kF16},   // SmolLM2 whole
      {2, 3, 4, 1, 1, 64, 16, KvType::kF16},   // heads 4 and 5, inside one group
      {4, 3, 2, 2, 0, 18, 7, KvType::kF16},    // a cut through two groups; odd page and head size
      {4, 4, 4, 2, 0, 32, 32, KvType::kF32},   // a KV head here that no query reads
      {1, 1, 0, 1, 0, 2, 1, KvType::kF32},     // pages of one token
      {2, 1, 0, 2, 0, 128, 64, KvType::kF16},  // no grouping
      {8, 8, 0, 1, 0, 256, 48, KvType::kF16},  // multi-query, largest head
      {3, 3, 0, 1, 0, 250, 5, KvType::kF32},  {4, 2, 0, 2, 0, 64, 16, KvType::kQ8_0},
      {3, 3, 0, 1, 0, 96, 7, KvType::kQ8_0},  {4, 2, 0, 2, 0, 128, 32, KvType::kQ4_0},
      {2, 1, 0, 2, 0, 32, 1, KvType::kQ4_0},
  };
  return all;
}

void expect_softmax(const Case& c, const cpu::Exec& exec) {
  const std::vector<float> out = c.run(exec);
  for (size_t s = 0; s < c.sequences.size(); ++s) {
    for (int64_t row = 0; row < c.sequences[s].n_rows; ++row) {
      for (int64_t head = 0; head < c.shape.heads; ++head) {
        const std::vector<double> exact = c.reference(s, row, head);
        const auto at = static_cast<size_t>(
            ((c.sequences[s].first_row + row) * c.shape.heads + head) * c.shape.dim);
        for (size_t d = 0; d < exact.size(); ++d) {
          ASSERT_NEAR(out[at + d], exact[d], 1e-5)
              << cpu::isa_name(exec.isa) << " dim " << c.shape.dim << " window " << c.window
              << " sequence " << s << " row " << row << " head " << head;
        }
      }
    }
  }
}

TEST(AttendTest, AgreesWithSoftmaxInDouble) {
  ThreadPool pool(1);
  std::mt19937 random(77);
  for (const Shape& shape : shapes()) {
    const Case c(random, shape, {{0, 1}, {0, 5}, {40, 1}, {13, 37}, {7, 0}, {64, 3}});
    for (const cpu::Isa isa : kernel_test::available_isas()) expect_softmax(c, {&pool, isa});
  }
}

TEST(AttendTest, AgreesWithSoftmaxOverAWindow) {
  ThreadPool pool(1);
  std::mt19937 random(90);
  for (const Shape& shape : shapes()) {
    Case c(random, shape, {{0, 5}, {90, 1}, {13, 37}, {7, 0}, {64, 11}});
    for (const int64_t window : {1, 2, 15, 16, 17, 33, 90, 91, 1 << 30}) {
      c.window = window;
      for (const cpu::Isa isa : kernel_test::available_isas()) expect_softmax(c, {&pool, isa});
    }
  }
}

// Keys and values outside of the window hold NaN: nothing of them may get through.
TEST(AttendTest, NothingOutsideOfTheWindowIsUsed) {
  ThreadPool pool(1);
  std::mt19937 random(91);
  const Shape shape{2, 2, 0, 1, 0, 32, 16, KvType::kF32};
  Case c(random, shape, {{99, 1}});
  for (const int64_t window : {1, 5, 20, 36, 99}) {
    c.window = window;
    Case poisoned = c;
    poisoned.sequences[0].pages = poisoned.pages[0].data();
    poisoned.cache.k = poisoned.k.data();
    poisoned.cache.v = poisoned.v.data();
    const float nan = std::nanf("");
    for (int64_t t = 0; t < 100 - window; ++t) {
      const int64_t row = c.pages[0][static_cast<size_t>(t / 16)] * 16 + t % 16;
      for (int64_t d = 0; d < 32; ++d) {
        std::memcpy(&poisoned.k[static_cast<size_t>((row * 32 + d) * 4)], &nan, 4);
        std::memcpy(&poisoned.v[static_cast<size_t>((row * 32 + d) * 4)], &nan, 4);
      }
    }
    for (const cpu::Isa isa : kernel_test::available_isas()) {
      EXPECT_EQ(kernel_test::bits(poisoned.run({&pool, isa})),
                kernel_test::bits(c.run({&pool, isa})))
          << "window " << window;
    }
  }
}

// A window as long as the text changes no bit.
TEST(AttendTest, AWindowThatHoldsEverythingIsNone) {
  ThreadPool pool(1);
  std::mt19937 random(92);
  for (const Shape& shape : shapes()) {
    Case c(random, shape, {{21, 50}});
    const std::vector<float> without = c.run({&pool, cpu::best_isa()});
    c.window = 71;
    EXPECT_EQ(kernel_test::bits(c.run({&pool, cpu::best_isa()})), kernel_test::bits(without));
  }
}

TEST(AttendTest, EqualBitsOnEveryInstructionSetAndPool) {
  ThreadPool one(1), three(3);
  std::mt19937 random(78);
  for (const Shape& shape : shapes()) {
    Case c(random, shape, {{100, 1}, {0, 70}, {33, 9}});
    for (const int64_t window : {0, 1, 45}) {
      c.window = window;
      const auto expected = kernel_test::bits(c.run({&one, cpu::Isa::kScalar}));
      for (const cpu::Isa isa : kernel_test::available_isas()) {
        EXPECT_EQ(kernel_test::bits(c.run({&one, isa})), expected) << cpu::isa_name(isa);
        EXPECT_EQ(kernel_test::bits(c.run({&three, isa})), expected) << cpu::isa_name(isa);
      }
    }
  }
}

// A chunk of a prompt, one row at a time and all at once.
TEST(AttendTest, RowsDoNotDependOnTheirNeighbours) {
  ThreadPool one(1), three(3);
  std::mt19937 random(79);
  for (const Shape& shape : shapes()) {
    Case c(random, shape, {{21, 50}});
    std::vector<AttendSequence> rows;
    for (int64_t row = 0; row < 50; ++row) rows.push_back({row, 1, 21 + row, c.pages[0].data()});
    const auto cols = static_cast<size_t>(shape.heads * shape.dim);
    for (const int64_t window : {0, 1, 23}) {
      c.window = window;
      for (const cpu::Isa isa : kernel_test::available_isas()) {
        const std::vector<float> together = c.run({&three, isa});
        std::vector<float> apart(together.size(), std::nanf(""));
        for (size_t row = 0; row < rows.size(); ++row) {
          const std::vector<float> out = c.run({&one, isa}, {&rows[row], 1});
          std::copy_n(out.begin() + static_cast<int64_t>(row * cols), cols,
                      apart.begin() + static_cast<int64_t>(row * cols));
        }
        EXPECT_EQ(kernel_test::bits(apart), kernel_test::bits(together))
            << cpu::isa_name(isa) << " window " << window;
      }
    }
  }
}

// Keys that grow along the sequence: the running maximum moves in every chunk, and by far more
// than exp can hold.
TEST(AttendTest, MaximumThatKeepsRising) {
  ThreadPool pool(1);
  std::mt19937 random(80);
  Case c(random, {1, 1, 0, 1, 0, 16, 16, KvType::kF32}, {{199, 1}});
  std::fill(c.q.begin(), c.q.end(), 1.0f);
  for (int64_t t = 0; t < 200; ++t) {
    const int64_t page = c.pages[0][static_cast<size_t>(t / 16)];
    const auto key = static_cast<float>(t * 10);
    for (int64_t d = 0; d < 16; ++d) {
      std::memcpy(&c.k[static_cast<size_t>(((page * 16 + t % 16) * 16 + d) * 4)], &key, 4);
    }
  }
  const std::vector<float> out = c.run({&pool, cpu::best_isa()});
  for (int64_t d = 0; d < 16; ++d) {
    EXPECT_FLOAT_EQ(out[static_cast<size_t>(d)], static_cast<float>(c.value(c.v, 0, 0, 199, d)));
  }
}

TEST(AttendTest, EmptyInputsDoNothing) {
  ThreadPool pool(2);
  std::mt19937 random(81);
  const Case c(random, {2, 1, 0, 2, 0, 16, 16, KvType::kF16}, {{0, 3}});
  const cpu::Exec exec{&pool, cpu::best_isa()};
  for (const float value : c.run(exec, {})) EXPECT_TRUE(std::isnan(value));
  cpu::attend(exec, View2D<const float>(nullptr, 3, 0), c.sequences, {0, 0, 1, 0}, c.cache, {},
              View2D<float>(nullptr, 3, 0));
}

TEST(AttendDeathTest, PagesAndShapesThatCannotBeAreBugs) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  ThreadPool pool(1);
  std::mt19937 random(82);
  const cpu::Exec exec{&pool, cpu::Isa::kScalar};
  Case c(random, {2, 1, 0, 2, 0, 16, 16, KvType::kF16}, {{20, 3}});
  c.pages[0][1] = static_cast<int32_t>(c.cache.n_pages);
  EXPECT_DEATH(c.run(exec), "CHECK failed");
  c.pages[0][1] = -1;
  EXPECT_DEATH(c.run(exec), "CHECK failed");
  c.pages[0][1] = 0;
  c.heads.first_kv_head = 1;  // head 0 would read KV head -1
  EXPECT_DEATH(c.run(exec), "CHECK failed");
  c.heads = {2, 1, 1, 0};  // head 2 would read KV head 2 of 2
  EXPECT_DEATH(c.run(exec), "CHECK failed");
  c.heads = {2, 0, 1, 0};
  c.cache.head_dim = 258;
  EXPECT_DEATH(c.run(exec), "CHECK failed");
}

TEST(TopKTest, BestFirstTiesBySmallerToken) {
  ThreadPool pool(1);
  const cpu::Exec exec{&pool, cpu::best_isa()};
  std::mt19937 random(83);
  for (int trial = 0; trial < 50; ++trial) {
    const size_t n = 1 + random() % 3000;
    const size_t k = 1 + random() % std::min<size_t>(n, trial % 5 == 0 ? n : 70);
    std::vector<float> logits(n);
    // Few values, so that ties are common; some -0, infinities and NaN.
    for (float& x : logits) x = static_cast<float>(static_cast<int>(random() % 40) - 20);
    for (size_t i = 0; i < n / 20; ++i) {
      logits[random() % n] = std::nanf("");
      logits[random() % n] = -0.0f;
      logits[random() % n] = -std::numeric_limits<float>::infinity();
    }
    std::vector<int32_t> order(n);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
      if (std::isnan(x) || std::isnan(y)) return !std::isnan(x) && std::isnan(y);
      return x > y;
    });
    std::vector<cpu::Candidate> out(k);
    cpu::top_k(exec, logits, 5000, out);
    for (size_t i = 0; i < k; ++i) {
      ASSERT_EQ(out[i].token, 5000 + order[i]) << "trial " << trial << " place " << i;
      ASSERT_EQ(std::bit_cast<uint32_t>(out[i].logit),
                std::bit_cast<uint32_t>(logits[static_cast<size_t>(order[i])]));
    }
  }
}

TEST(TopKTest, NanWinsOnlyWhenNothingElseIsLeft) {
  ThreadPool pool(1);
  const cpu::Exec exec{&pool, cpu::best_isa()};
  const float nan = std::nanf("");
  const std::vector<float> logits = {nan, -3e38f, nan, -std::numeric_limits<float>::infinity()};
  std::vector<cpu::Candidate> out(4);
  cpu::top_k(exec, logits, 0, out);
  EXPECT_EQ(out[0].token, 1);
  EXPECT_EQ(out[1].token, 3);
  EXPECT_EQ(out[2].token, 0);
  EXPECT_EQ(out[3].token, 2);
  cpu::top_k(exec, logits, 0, {});
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  std::vector<cpu::Candidate> five(5);
  EXPECT_DEATH(cpu::top_k(exec, logits, 0, five), "CHECK failed");
}

}  // namespace
}  // namespace spillway

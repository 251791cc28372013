// attend against a softmax in double and against the CPU's, over what paging, head map, splits and
// tiles can take; inputs are new every time, the seed is printed.
#include "tests/kernels/cuda/attend_cases.h"

namespace spillway {
namespace {

using cuda_test::AttendCase;
using cuda_test::AttendOnDevice;
using cuda_test::AttendShape;
using cuda_test::Tokens;

class CudaAttend : public testing::Test {
 protected:
  CudaAttend() : seed_(std::random_device()()), random_(seed_) {}
  void SetUp() override { RecordProperty("seed", std::to_string(seed_)); }
  void TearDown() override {
    if (HasFailure()) std::printf("seed %u\n", seed_);
  }

  void expect_parity(const AttendCase& c) {
    const AttendOnDevice on_device(runner_, c);
    const std::vector<float> out = on_device.run();
    cuda_test::expect_softmax(c, out);
    if (HasFatalFailure()) return;
    EXPECT_EQ(kernel_test::bits(on_device.run()), kernel_test::bits(out))
        << cuda_test::describe(c) << ": two runs differ";
    EXPECT_TRUE(on_device.counters_are_zero()) << cuda_test::describe(c);
    ThreadPool pool(2);
    std::vector<float> cpu(out.size());
    cpu::attend({&pool, cpu::best_isa()}, {c.q.data(), c.rows, c.cols()}, c.sequences, c.heads,
                c.cache, {c.scale, c.window}, {cpu.data(), c.rows, c.cols()});
    double squares = 0;
    double errors = 0;
    for (size_t i = 0; i < out.size(); ++i) {
      squares += static_cast<double>(cpu[i]) * static_cast<double>(cpu[i]);
      errors += std::pow(static_cast<double>(out[i]) - static_cast<double>(cpu[i]), 2);
    }
    EXPECT_LE(std::sqrt(errors), 2e-3 * std::sqrt(squares)) << cuda_test::describe(c);
  }

  unsigned seed_;
  std::mt19937 random_;
  cuda_test::Runner runner_;
};

TEST_F(CudaAttend, OneRowASequence) {
  for (const AttendShape& shape : cuda_test::attend_shapes()) {
    const AttendCase c(random_, shape,
                       {{0, 1}, {1, 1}, {14, 1}, {15, 1}, {16, 1}, {63, 1}, {64, 1}, {300, 1}});
    ASSERT_NO_FATAL_FAILURE(expect_parity(c));
  }
}

TEST_F(CudaAttend, OneSequenceOfAnyLength) {
  for (const int64_t before : {0, 15, 16, 31, 47, 64, 65, 127, 500, 1023, 3001}) {
    const AttendCase c(random_, {8, 4, 0, 2, 0, 128, 16}, {{before, 1}});
    ASSERT_NO_FATAL_FAILURE(expect_parity(c));
  }
}

// One KV head: hundreds of splits, which are added in groups of 8 and of 16.
TEST_F(CudaAttend, LongContextsOfOneHead) {
  for (const auto& [heads, before] : {std::pair<int64_t, int64_t>{8, 10000}, {2, 27000}}) {
    const AttendCase c(random_, {heads, heads, 0, 1, 0, 64, 16}, {{before, 1}});
    ASSERT_NO_FATAL_FAILURE(expect_parity(c));
  }
}

TEST_F(CudaAttend, ManySequences) {
  std::vector<Tokens> runs;
  for (int i = 0; i < 70; ++i) runs.push_back({static_cast<int64_t>(random_() % 400), 1});
  runs[40].before = 5000;
  const AttendCase c(random_, {4, 2, 0, 2, 0, 64, 16}, runs);
  ASSERT_NO_FATAL_FAILURE(expect_parity(c));
}

TEST_F(CudaAttend, SeveralRows) {
  for (const AttendShape& shape : cuda_test::attend_shapes()) {
    const AttendCase c(random_, shape, {{0, 5}, {13, 37}, {64, 2}, {0, 64}, {31, 33}});
    ASSERT_NO_FATAL_FAILURE(expect_parity(c));
  }
}

TEST_F(CudaAttend, OneRowAndSeveralInAStep) {
  for (const AttendShape& shape : cuda_test::attend_shapes()) {
    const AttendCase c(random_, shape, {{0, 5}, {200, 1}, {13, 37}, {7, 0}, {0, 1}, {129, 3}});
    ASSERT_NO_FATAL_FAILURE(expect_parity(c));
  }
}

TEST_F(CudaAttend, ALongPrompt) {
  for (const int64_t rows : {63, 64, 65, 127, 129, 400}) {
    const AttendCase c(random_, {4, 4, 0, 1, 0, 128, 16}, {{0, rows}, {250, rows}});
    ASSERT_NO_FATAL_FAILURE(expect_parity(c));
  }
}

TEST_F(CudaAttend, Windows) {
  for (const AttendShape& shape : cuda_test::attend_shapes()) {
    AttendCase c(random_, shape,
                 {{0, 5}, {90, 1}, {13, 37}, {7, 0}, {64, 11}, {300, 1}, {200, 80}});
    for (const int64_t window : {1, 2, 15, 16, 17, 33, 64, 91, 1 << 30}) {
      c.window = window;
      ASSERT_NO_FATAL_FAILURE(expect_parity(c));
    }
  }
}

// One sequence with a window, everything before it NaN: it is not read.
TEST_F(CudaAttend, NothingBeforeTheWindowIsRead) {
  for (const int64_t window : {1, 5, 20, 36, 99}) {
    AttendCase c(random_, {4, 2, 0, 2, 0, 64, 16}, {{299, 1}});
    c.window = window;
    for (int64_t t = 0; t < 300 - window; ++t) {
      for (int64_t kv = 0; kv < 2; ++kv) {
        std::memset(&c.k[2 * c.element(0, kv, t, 0)], 0xff, 128);
        std::memset(&c.v[2 * c.element(0, kv, t, 0)], 0xff, 128);
      }
    }
    ASSERT_NO_FATAL_FAILURE(cuda_test::expect_softmax(c, AttendOnDevice(runner_, c).run()));
  }
}

// Keys that grow along the sequence: the running maximum moves in every tile.
TEST_F(CudaAttend, MaximumThatKeepsRising) {
  for (const int64_t rows : {1, 6}) {
    AttendCase c(random_, {1, 1, 0, 1, 0, 64, 16, KvType::kF32}, {{799 - rows, rows}});
    std::fill(c.q.begin(), c.q.end(), 1.0f);
    for (int64_t t = 0; t < 799; ++t) {
      for (int64_t d = 0; d < 64; ++d) {
        const auto key = static_cast<float>(t * 2);
        std::memcpy(&c.k[4 * c.element(0, 0, t, d)], &key, 4);
      }
    }
    ASSERT_NO_FATAL_FAILURE(cuda_test::expect_softmax(c, AttendOnDevice(runner_, c).run()));
  }
}

// Every form from one launch: bf16 and codes are those of the floats.
TEST_F(CudaAttend, Forms) {
  ThreadPool pool(1);
  for (const AttendShape& shape : cuda_test::attend_shapes()) {
    for (const auto& runs : std::vector<std::vector<Tokens>>{{{30, 1}, {900, 1}, {2, 1}},
                                                             {{40, 9}, {0, 13}, {55, 1}}}) {
      const AttendCase c(random_, shape, runs);
      const AttendOnDevice d(runner_, c);
      if (c.cols() % 32 != 0) continue;
      const std::vector<float> x = d.run();
      d.run(cuda::kInt8Form | cuda::kBf16Form);
      const std::vector<uint16_t> bf16 = d.bf16.values();
      const std::vector<int8_t> q8 = d.q8.values();
      const std::vector<cuda::ActivationBlock> blocks = d.blocks.values();
      std::vector<int8_t> codes(x.size());
      std::vector<float> scales(x.size() / 32);
      std::vector<int32_t> sums(x.size() / 16);
      cpu::quantize_rows({&pool, cpu::best_isa()}, {{x.data(), c.rows, c.cols()},
                                                    {codes.data(), c.rows, c.cols()},
                                                    {scales.data(), c.rows, c.cols() / 32},
                                                    {sums.data(), c.rows, c.cols() / 16}});
      constexpr int kQuads[8] = {0, 4, 1, 5, 2, 6, 3, 7};
      for (int64_t i = 0; i < static_cast<int64_t>(x.size()); ++i) {
        const auto at = static_cast<size_t>(i);
        const int64_t row = i / c.cols();
        const int64_t block = i % c.cols() / 32;
        const auto place = static_cast<size_t>(block * cuda::padded_rows(c.rows) + row);
        const int64_t lane = i % 32;
        const auto quad = std::find(kQuads, kQuads + 8, lane / 4) - kQuads;
        ASSERT_LE(std::abs(bf16_to_f32(bf16[at]) - x[at]), std::abs(x[at]) / 256);
        ASSERT_EQ(q8[place * 32 + static_cast<size_t>(4 * quad + lane % 4)], codes[at])
            << cuda_test::describe(c) << " row " << row << " column " << i % c.cols();
        ASSERT_EQ(blocks[place].scale, scales[at / 32]);
        ASSERT_EQ(blocks[place].sum[lane / 16], sums[at / 16]);
      }
    }
  }
}

// A decode step captured at one position and replayed at others: nothing of the first remains.
TEST_F(CudaAttend, ACapturedStepServesLongerSequences) {
  const AttendShape shape{8, 4, 0, 2, 0, 128, 16};
  AttendCase c(random_, shape, {{3, 1}, {40, 1}, {0, 1}}, 2000);
  const AttendOnDevice d(runner_, c);
  cuda::Graph::begin(runner_.stream);
  d.launch(cuda::kFloatForm);
  const cuda::Graph graph = cuda::Graph::end(runner_.stream);
  for (const int64_t more : {0, 1, 100, 1900}) {
    for (size_t s = 0; s < c.sequences.size(); ++s) {
      const int64_t position = c.rows_of[s].first_position + more;
      c.write_tokens(random_, s, position + 1);
      c.sequences[s].first_position = position;
    }
    std::vector<cuda::SequenceRows> rows = c.rows_of;
    for (cuda::SequenceRows& row : rows) row.first_position += static_cast<int32_t>(more);
    const auto bytes = static_cast<int64_t>(rows.size() * sizeof(rows[0]));
    cuda::copy_to_device(runner_.stream, d.sequences.data(), rows.data(), bytes);
    cuda::copy_to_device(runner_.stream, d.k.data(), c.k.data(), static_cast<int64_t>(c.k.size()));
    cuda::copy_to_device(runner_.stream, d.v.data(), c.v.data(), static_cast<int64_t>(c.v.size()));
    graph.launch(runner_.stream);
    runner_.wait();
    ASSERT_NO_FATAL_FAILURE(cuda_test::expect_softmax(c, d.x.values())) << more << " tokens more";
  }
}

TEST_F(CudaAttend, EmptyStepsDoNothing) {
  const AttendCase c(random_, {2, 1, 0, 2, 0, 64, 16}, {});
  const AttendOnDevice d(runner_, c);
  d.launch(cuda::kFloatForm);
  runner_.wait();
}

}  // namespace
}  // namespace spillway

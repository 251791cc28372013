// GpuSpill on streams that are fakes (tests/support/fake_streams.h): whatever order the device
// takes operations in, and whichever thread reads the disk when, each half finds its own weights in
// its slot, launched one by one or as a graph; and a disk that fails, or a job that ends, leaves no
// step waiting.
#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/core/error.h"
#include "parallel/spill.h"
#include "runtime/model/loader.h"
#include "runtime/stage/gpu_spill.h"
#include "tests/support/fake_streams.h"
#include "tests/support/spill_files.h"
#include "tests/support/tiny_job.h"

namespace spillway::testing {
namespace {

TinyOptions six_layers() {
  TinyOptions options;
  options.n_layers = 6;
  options.heads = 8;
  options.kv_heads = 4;
  options.head_dim = 32;
  options.ff = 192;
  options.type = QuantType::kQ8_0;
  return options;
}

bool equal(const PackedMatrix& a, const PackedMatrix& b) {
  return a.rows == b.rows && a.cols == b.cols && a.type == b.type &&
         std::equal(a.data, a.data + packed_bytes(a.type, a.rows, a.cols), b.data);
}

// A rank with `places`, and the same weights with `in_memory` instead, whose halves have the same
// columns.
struct Rank {
  const TinyJob& job;
  ThreadPool pool{2};
  cpu::Exec cpu{&pool, cpu::best_isa()};
  Plan plan;
  Plan memory_plan;
  GpuSpill spill;
  Arena device{"device", bytes_in(plan, WeightHome::kDevice)};
  Arena memory_device{"device", bytes_in(memory_plan, WeightHome::kDevice)};
  Arena memory_host{"host", bytes_in(memory_plan, WeightHome::kHost)};
  WeightWriter writer = cpu_writer(cpu);
  Weights weights;
  Weights expected;
  cuda::Stream stream;
  cuda::Exec exec;
  std::vector<float> normed;
  int64_t right = 0;  // halves that have found their weights
  int64_t wrong = 0;

  Rank(const TinyJob& job_in, const char* places, const char* in_memory)
      : job(job_in),
        plan(made_up_gpu_plan(job, places)),
        memory_plan(made_up_gpu_plan(job, in_memory)),
        spill(job.spec, plan, 0, cpu, job.spill_folder()),
        weights(load(plan, {&writer, &device}, {&writer, spill.host_arena()}, spill.disk_target())),
        expected(load(memory_plan, {&writer, &memory_device}, {&writer, &memory_host}, {})),
        normed(static_cast<size_t>(64 * job.spec.dim), 0.5F) {
    spill.loaded(weights);
    exec.stream = stream.handle();
  }
  int64_t bytes_in(const Plan& p, WeightHome home) const {
    return weight_buffers(job.spec, p.parts[0], p.stages[0].layers, true, true, home).total();
  }
  Weights load(const Plan& p, WeightTarget to_device, WeightTarget host, WeightTarget disk) const {
    if (host.arena != nullptr && host.arena->bytes() == 0) host = {};
    return load_weights(job.gguf, job.spec, p, 0, {to_device, host, disk}, {});
  }

  void expect(bool same) { ++(same ? right : wrong); }

  void attention(size_t i) {
    const AttentionMatrices m = spill.attention(exec, weights.layers[i]);
    fake_streams::enqueue(exec.stream, [this, m, i] {
      const LayerWeights& w = expected.layers[i];
      expect(equal(m.qkv[0], w.qkv[0]) && equal(m.qkv[1], w.qkv[1]) && equal(m.qkv[2], w.qkv[2]) &&
             equal(m.o, w.o));
    });
    if (m.multiplied != nullptr) m.multiplied->record(exec.stream);
    spill.done(weights.layers[i], Half::kAttention);
  }

  void feed_forward(size_t i, int64_t n) {
    const LayerWeights& mine = weights.layers[i];
    const View2D<const float> input(normed.data(), n, job.spec.dim);
    const CpuTerm cpu_term = spill.start_on_cpu(exec, mine, input);
    const FeedForwardMatrices m = spill.feed_forward(exec, mine);
    fake_streams::enqueue(exec.stream, [this, m, i] {
      const LayerWeights& w = expected.layers[i];
      bool same = true;
      for (size_t p = 0; p < m.n_pieces; ++p) {
        const bool of_cpu = m.n_pieces == 2 && p == 0;
        const auto& gate_up = of_cpu ? w.cpu_gate_up : w.gate_up;
        same = same && equal(m.pieces[p].gate_up[0], gate_up[0]) &&
               equal(m.pieces[p].gate_up[1], gate_up[1]) &&
               equal(m.pieces[p].down, of_cpu ? w.cpu_down : w.down);
      }
      expect(same);
    });
    if (m.multiplied != nullptr) m.multiplied->record(exec.stream);
    if (cpu_term.rows.rows > 0) cpu_term.ready->wait_in(exec.stream);
    spill.done(mine, Half::kFeedForward);
  }

  void launch(int64_t n) {
    spill.begin(exec, n);
    for (size_t i = 0; i < weights.layers.size(); ++i) {
      attention(i);
      feed_forward(i, n);
    }
  }

  cuda::Graph graph(int64_t n) {
    cuda::Graph::begin(stream);
    launch(n);
    return cuda::Graph::end(stream);
  }

  // A step to its end; how many halves it found right.
  int64_t step(int64_t n, const cuda::Graph* graph = nullptr) {
    right = wrong = 0;
    spill.set_rows(n);
    graph == nullptr ? launch(n) : graph->launch(stream);
    spill.wait_for(stream);
    return right;
  }
};

struct Case {
  const char* name;
  const char* places;
  const char* in_memory;
};

class GpuSpillOrder : public ::testing::TestWithParam<Case> {};

TEST_P(GpuSpillOrder, EveryHalfFindsItsWeights) {
  const TinyJob job(six_layers());
  Rank rank(job, GetParam().places, GetParam().in_memory);
  const cuda::Graph few = rank.graph(2);
  const cuda::Graph many = rank.graph(64);
  for (uint32_t seed = 1; seed <= 10; ++seed) {
    SCOPED_TRACE(seed);
    fake_streams::seed(seed);
    ASSERT_EQ(rank.step(32), 12);
    ASSERT_EQ(rank.step(2, &few), 12);
    ASSERT_EQ(rank.step(2, &few), 12);
    ASSERT_EQ(rank.step(5), 12);
    ASSERT_EQ(rank.step(64, &many), 12);
    rank.spill.check();
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, GpuSpillOrder,
    ::testing::Values(Case{"streamed", "layers all = streamed", "layers all = resident"},
                      Case{"disk", "layers all = disk", "layers all = resident"},
                      Case{"one_half", "layer 3 ffn = disk", "layers all = resident"},
                      Case{"disk_and_streamed", "layers 0-1 = disk; layers 3-5 ffn = streamed",
                           "layers all = resident"},
                      Case{"disk_and_cpu", "layers 0-2 = disk; layers 3-5 ffn = cpu",
                           "layers 0-2 = streamed; layers 3-5 ffn = cpu"},
                      Case{"disk_and_hybrid",
                           "layers all ffn = hybrid 0.5; layers 1-2 = disk; layer 5 attn = disk",
                           "layers all ffn = hybrid 0.5; layers 1-2 = resident"}),
    [](const auto& test) { return std::string(test.param.name); });

// By their sizes a profile knows them among all copies (launch/terms.h).
TEST(GpuSpill, CopiesHaveTheSizesThatThePlanSays) {
  const TinyJob job(six_layers());
  Rank rank(job,
            "layers 0-1 = streamed; layer 2 = disk; layer 3 ffn = cpu; layer 4 ffn = hybrid 0.5",
            "layers all = resident; layer 4 ffn = hybrid 0.5");
  const std::vector<int64_t> sizes =
      streamed_copies(job.spec, rank.plan.parts[0], rank.plan.stages[0].layers);
  const auto there = [&](int64_t bytes) {
    return std::find(sizes.begin(), sizes.end(), bytes) != sizes.end();
  };
  EXPECT_EQ(sizes.size(), 4U);  // attention, feed-forward, and the hybrid one with and without
  for (const LayerWeights& w : rank.weights.layers) {
    for (const Half half : {Half::kAttention, Half::kFeedForward}) {
      if (place_of_half(w.part, half) == Place::kResident) continue;
      const auto span = half_span(w, half);
      EXPECT_TRUE(there(static_cast<int64_t>(span.size())));
      if (place_of_half(w.part, half) != Place::kHybrid) continue;
      EXPECT_TRUE(there(span.data() + span.size() - w.gate_up[0].data));
    }
  }
}

// Those before the one that failed, and the resident ones, are right; then the Error.
TEST(GpuSpill, AStepEndsWhenTheDiskFails) {
  const TinyJob job(six_layers());
  for (const bool in_graph : {false, true}) {
    Rank rank(job, "layers 0-4 = disk; layers 4-4 ffn = cpu",
              "layers 0-4 = resident; layers 4-4 ffn = cpu");
    const cuda::Graph graph = rank.graph(2);
    ASSERT_EQ(rank.step(2), 12);
    rank.spill.check();
    ASSERT_EQ(cut_spill_files(job.spill_folder(), 0), 1);
    EXPECT_LE(rank.step(2, in_graph ? &graph : nullptr), 3 + 3);  // slots filled before, no disk
    EXPECT_GE(rank.wrong, 6);
    try {
      rank.spill.check();
      FAIL() << "nothing was thrown";
    } catch (const Error& error) {
      const std::string text = error.what();
      EXPECT_NE(text.find("weights on disk of rank 0, layer "), std::string::npos) << text;
      EXPECT_NE(text.find("it ends there"), std::string::npos) << text;
    }
  }
}

TEST(GpuSpill, AStepEndsWhenTheJobDoes) {
  const TinyJob job(six_layers());
  Rank rank(job, "layers all = disk", "layers all = resident");
  const cuda::Graph graph = rank.graph(2);
  ASSERT_EQ(rank.step(2, &graph), 12);
  rank.spill.stop();
  EXPECT_LE(rank.step(2, &graph), kDiskSlots);
  EXPECT_LE(rank.step(64), 0);
  EXPECT_THROW(rank.spill.check(), Error);
}

}  // namespace
}  // namespace spillway::testing

// Halves on the CPU of a rank with a GPU: what the loader puts into the host's home lies side by
// side, and CpuHalf multiplies it with the bits of the CPU's own layer.
#include "runtime/stage/cpu_half.h"

#include <gtest/gtest.h>

#include "kernels/core/host_pages.h"
#include "kernels/core/packed_matrix.h"
#include "parallel/solo_communicator.h"
#include "parallel/spill.h"
#include "runtime/model/loader.h"
#include "runtime/stage/cpu_layer.h"
#include "tests/support/tiny_job.h"

namespace spillway::testing {
namespace {

const std::byte* end_of(const PackedMatrix& w) {
  return w.data + packed_bytes(w.type, w.rows, w.cols);
}

// A rank's weights with both homes in memory of the test's.
struct Loaded {
  Loaded(const TinyJob& job, const Plan& plan, const cpu::Exec& exec)
      : device("device", list(job, plan, WeightHome::kDevice).total()),
        host_pages("host", list(job, plan, WeightHome::kHost).total(), *exec.pool),
        host("host", host_pages.data(), host_pages.bytes()) {
    const WeightWriter writer = cpu_writer(exec);
    weights =
        load_weights(job.gguf, job.spec, plan, 0, {{&writer, &device}, {&writer, &host}, {}}, {});
  }
  static BufferList list(const TinyJob& job, const Plan& plan, WeightHome home) {
    return weight_buffers(job.spec, plan.parts[0], plan.stages[0].layers, true, true, home);
  }
  Arena device;
  HostPages host_pages;
  Arena host;
  Weights weights;
};

TinyOptions shape(QuantType type, const char* architecture) {
  TinyOptions options;
  options.architecture = architecture;
  options.n_layers = 3;
  options.ff = 192;
  options.tied = true;
  options.type = type;
  if (options.architecture == "gemma3") options.window = 9;
  return options;
}

TEST(HostHome, HalvesLieSideBySide) {
  const TinyJob job(shape(QuantType::kQ8_0, "llama"));
  ThreadPool pool(2);
  const Plan plan =
      made_up_gpu_plan(job, "layers 0 = streamed; layer 1 ffn = cpu; layer 2 ffn = hybrid 0.5");
  ASSERT_TRUE(plan.parts[0].gpu);
  const Loaded loaded(job, plan, {&pool, cpu::best_isa()});
  EXPECT_EQ(loaded.host.used(), loaded.host.bytes());
  const std::byte* at = loaded.host_pages.data();
  const auto next = [&](const PackedMatrix& w) {
    EXPECT_EQ(w.data, at);
    at = end_of(w);
  };
  const auto attention = [&](const LayerWeights& w) {
    for (const PackedMatrix& m : w.qkv) next(m);
    next(w.o);
  };
  const std::vector<LayerWeights>& layers = loaded.weights.layers;
  attention(layers[0]);
  for (const LayerWeights& w : layers) {
    if (w.part.feed_forward == Place::kHybrid) {
      for (const PackedMatrix& m : w.cpu_gate_up) next(m);
      next(w.cpu_down);
      EXPECT_EQ(w.cpu_down.cols, 96);
    }
    for (const PackedMatrix& m : w.gate_up) next(m);
    next(w.down);
  }
  EXPECT_EQ(at, loaded.host_pages.data() + loaded.host.bytes());
  // Half by half what the ledger and the slots are made for.
  EXPECT_EQ(half_bytes(job.spec, job.spec.layers[2], plan.parts[0].layers[2], Half::kFeedForward),
            end_of(layers[2].down) - layers[2].cpu_gate_up[0].data);
  EXPECT_EQ(half_bytes(job.spec, job.spec.layers[0], plan.parts[0].layers[0], Half::kAttention),
            end_of(layers[0].o) - layers[0].qkv[0].data);
}

class CpuHalfTest : public ::testing::TestWithParam<std::tuple<QuantType, const char*>> {};

TEST_P(CpuHalfTest, BitsOfTheCpusLayer) {
  const auto [type, architecture] = GetParam();
  const TinyJob job(shape(type, architecture));
  ThreadPool pool(3);
  const cpu::Exec exec{&pool, cpu::best_isa()};
  const Plan plan = made_up_gpu_plan(job, "layers 0-1 ffn = cpu; layer 2 ffn = hybrid 0.5");
  const Loaded loaded(job, plan, exec);
  Arena pinned("pinned", spill_pinned_buffers(job.spec, plan.parts[0], plan.limits).total());
  const CpuHalf half(job.spec, plan, 0, exec, pinned);
  EXPECT_EQ(pinned.used(), pinned.bytes());
  EXPECT_EQ(half.most_rows(), plan.limits.max_cpu_rows);
  EXPECT_EQ(half.bytes() + pinned.bytes(), [&] {
    int64_t bytes = 0;
    for (const LedgerLine& line : plan.ledger) {
      if (line.detail == "halves on the CPU") bytes += line.bytes;
    }
    return bytes;
  }());

  const Plan cpu_plan = job.plan(tiny_request());
  Scratch scratch(job.spec, cpu_plan, 0);
  const auto solo = make_solo_communicator();
  CpuStep step{exec, job.spec, *solo, scratch, {}, {}, {}, {}};
  for (const int64_t rows : {1, 5, 8}) {
    for (LayerWeights w : loaded.weights.layers) {
      SCOPED_TRACE("rows " + std::to_string(rows));
      std::vector<float> x(static_cast<size_t>(rows * job.spec.dim));
      for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>((i * 37) % 101) / 50 - 1;
      std::vector<float> expected = x;
      const View2D<float> view(x.data(), rows, job.spec.dim);
      cpu::rms_norm(exec, view, w.feed_forward_norm, static_cast<float>(job.spec.norm_eps),
                    half.input(rows));
      half.run(w, rows);
      cpu::add_rows(exec, half.output(rows), view);
      // The layer itself, of these columns alone.
      if (w.part.feed_forward == Place::kHybrid) {
        w.part.ff = w.part.ff_on_cpu;
        w.gate_up = w.cpu_gate_up;
        w.down = w.cpu_down;
      }
      w.feed_forward_post_norm = {};  // the GPU's to do
      feed_forward_half(step, w, {expected.data(), rows, job.spec.dim});
      EXPECT_EQ(x, expected);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, CpuHalfTest,
                         ::testing::Combine(::testing::Values(QuantType::kF32, QuantType::kQ8_0,
                                                              QuantType::kQ4_1),
                                            ::testing::Values("llama", "gemma3")));

}  // namespace
}  // namespace spillway::testing

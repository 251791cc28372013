// Halves on disk as a rank on a GPU takes them, without the GPU: a thread stands for the stream of
// copies. Each step brings the bits of the loaded weights to the same addresses; a disk that fails
// ends in an Error on the rank's own thread and in weights that are no numbers; nobody is left
// waiting.
#include "runtime/stage/disk_calls.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <thread>

#include "kernels/core/error.h"
#include "kernels/core/packed_matrix.h"
#include "parallel/spill.h"
#include "runtime/model/loader.h"
#include "tests/support/kernel_fixtures.h"
#include "tests/support/spill_files.h"
#include "tests/support/tiny_job.h"

namespace spillway::testing {
namespace {

TinyOptions five_layers() {
  TinyOptions options;
  options.n_layers = 5;
  options.heads = 8;
  options.kv_heads = 4;
  options.head_dim = 32;
  options.ff = 160;
  options.type = QuantType::kQ8_0;
  return options;
}

// A GPU's rank with 8 halves on disk, loaded; its device's memory and the host's are Arenas.
struct Loaded {
  TinyJob job{five_layers()};
  TempDir dir;
  ThreadPool pool{2};
  cpu::Exec exec{&pool, cpu::best_isa()};
  Plan plan =
      made_up_gpu_plan(job, "layers 0-2 = disk; layers 3-4 ffn = disk; layer 3 attn = streamed");
  Arena device{"device", bytes_in(plan, WeightHome::kDevice)};
  Arena host{"host", bytes_in(plan, WeightHome::kHost)};
  DiskHalves halves{exec, job.spec, plan, 0, dir.file("spill"), InCache::kCopied};
  WeightWriter writer = cpu_writer(exec);
  Weights weights = load(plan, device, host, halves.target());

  int64_t bytes_in(const Plan& p, WeightHome home) const {
    return weight_buffers(job.spec, p.parts[0], p.stages[0].layers, true, true, home).total();
  }
  Weights load(const Plan& p, Arena& to_device, Arena& to_host, WeightTarget disk) {
    return load_weights(job.gguf, job.spec, p, 0,
                        {{&writer, &to_device}, {&writer, &to_host}, disk}, {});
  }
};

std::vector<std::pair<size_t, Half>> halves_on_disk() {
  std::vector<std::pair<size_t, Half>> out;
  for (size_t layer = 0; layer < 5; ++layer) {
    if (layer < 3) out.emplace_back(layer, Half::kAttention);
    out.emplace_back(layer, Half::kFeedForward);
  }
  return out;
}

std::string thrown(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(DiskHalves, StepsBringTheBitsOfResidentWeightsToTheSamePlaces) {
  Loaded l;
  ASSERT_TRUE(l.plan.parts[0].gpu);
  // The same weights in memory.
  const Plan resident = made_up_gpu_plan(l.job, "layers all = resident");
  Arena whole("whole", l.bytes_in(resident, WeightHome::kDevice));
  Arena none("none", 0);
  const Weights expected = l.load(resident, whole, none, {});
  l.halves.start(l.weights);
  DiskCalls calls(l.halves);
  const auto order = halves_on_disk();
  ASSERT_EQ(l.halves.size(), order.size());
  EXPECT_EQ(l.halves.name(1), "layer 0 feed-forward");
  for (int step = 0; step < 3; ++step) {
    std::thread([&] {
      for (size_t i = 0; i < order.size(); ++i) {
        const auto [layer, half] = order[i];
        DiskCalls::wait(calls.turn(i));
        const auto wanted = half_span(expected.layers[layer], half);
        const auto stored = half_span(l.weights.layers[layer], half);
        ASSERT_EQ(stored.data(), l.halves.stored(i).data());
        ASSERT_EQ(stored.size(), wanted.size());
        ASSERT_TRUE(std::equal(wanted.begin(), wanted.end(), l.halves.at(i)))
            << "step " << step << ", " << l.halves.name(i);
        DiskCalls::release(calls.turn(i));
      }
    }).join();
    calls.check();
  }
}

TEST(DiskHalves, SlotsAreTheLedgersAndBeginOnPages) {
  Loaded l;
  l.halves.start(l.weights);
  const int64_t slot = disk_slot_bytes(l.job.spec, l.plan.parts[0], l.plan.stages[0].layers);
  EXPECT_EQ(l.halves.bytes(), kDiskSlots * slot);
  int64_t in_ledger = 0;
  for (const LedgerLine& line : l.plan.ledger) {
    if (line.detail == "disk slots" && line.place == "host") in_ledger += line.bytes;
  }
  EXPECT_EQ(in_ledger, l.halves.bytes());
  for (size_t i = 0; i < l.halves.size(); ++i) {
    const std::span<std::byte> mine = l.halves.slot_of(i);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(mine.data()) % SpillFile::kAlignment, 0U);
    EXPECT_EQ(static_cast<int64_t>(mine.size()), slot);
    EXPECT_GE(l.halves.at(i), mine.data());
    EXPECT_LE(l.halves.at(i) + l.halves.stored(i).size(), mine.data() + mine.size());
  }
  EXPECT_EQ(l.halves.slot_of(0).data(), l.halves.slots().data());
}

// The halves from the one that cannot be read on are no numbers; check() says which that was.
TEST(DiskCalls, ADiskThatFailsIsThrownAfterTheStep) {
  Loaded l;
  const std::span<const std::byte> last = half_span(l.weights.layers[2], Half::kAttention);
  const std::span<const std::byte> first = half_span(l.weights.layers[0], Half::kAttention);
  ASSERT_EQ(cut_spill_files(l.dir.file("spill"), (last.data() - first.data()) /
                                                     SpillFile::kAlignment * SpillFile::kAlignment),
            1);
  l.halves.start(l.weights);
  DiskCalls calls(l.halves);
  constexpr size_t kFails = 4;  // or the half before, whose last page is gone
  for (int step = 0; step < 2; ++step) {
    for (size_t i = 0; i < l.halves.size(); ++i) {
      DiskCalls::wait(calls.turn(i));
      if (step > 0 || i >= kFails) {
        const std::byte* at = l.halves.at(i);
        ASSERT_TRUE(std::all_of(at, at + l.halves.stored(i).size(), [](std::byte b) {
          return b == std::byte{0xff};
        })) << i;
      }
      DiskCalls::release(calls.turn(i));
    }
  }
  const std::string text = thrown([&] { calls.check(); });
  EXPECT_NE(text.find("reading the spill file failed"), std::string::npos) << text;
  EXPECT_NE(text.find(l.dir.file("spill")), std::string::npos) << text;
  EXPECT_NE(text.find("weights on disk of rank 0"), std::string::npos) << text;
  EXPECT_TRUE(text.find(l.halves.name(kFails)) != std::string::npos ||
              text.find(l.halves.name(kFails - 1)) != std::string::npos)
      << text;
}

TEST(DiskCalls, StopLeavesNobodyWaiting) {
  Loaded l;
  l.halves.start(l.weights);
  DiskCalls calls(l.halves);
  std::string text = "nothing was thrown";
  std::thread stream([&] {
    for (size_t turn = 0; text == "nothing was thrown"; ++turn) {
      const size_t i = turn % l.halves.size();
      DiskCalls::wait(calls.turn(i));
      DiskCalls::release(calls.turn(i));
      text = thrown([&] { calls.check(); });
    }
  });
  calls.stop();
  stream.join();
  EXPECT_NE(text.find("is not read any more"), std::string::npos) << text;
}

// What DiskCalls fills slots with.
TEST(DiskCalls, ProductsWithOnesAreNoNumbers) {
  ThreadPool pool(1);
  for (const cpu::Isa isa : kernel_test::available_isas()) {
    const cpu::Exec exec{&pool, isa};
    for (const QuantType type : kernel_test::computable_types()) {
      constexpr int64_t kRows = 32;
      constexpr int64_t kCols = 256;
      Arena memory("ones", packed_bytes(type, kRows, kCols));
      const PackedMatrix w{type, kRows, kCols, memory.take(memory.bytes())};
      std::fill(w.data, w.data + memory.bytes(), std::byte{0xff});
      std::mt19937 random(3);
      kernel_test::Inputs in(exec, 2, kCols, kernel_test::random_floats(random, 2 * kCols));
      std::vector<float> out(static_cast<size_t>(2 * kRows), 1.0F);
      cpu::matmul(exec, {&w, 1}, in.view(), {out.data(), 2, kRows});
      for (const float y : out) {
        EXPECT_FALSE(std::isfinite(y))
            << quant_info(type).name << " " << cpu::isa_name(isa) << " " << y;
      }
    }
  }
}

}  // namespace
}  // namespace spillway::testing

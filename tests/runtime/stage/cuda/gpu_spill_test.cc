// A small model on a GPU with halves elsewhere, steps of all kinds: those that are only copied,
// from the host or from disk, have the bits of resident weights, beside halves on the CPU as well;
// and a disk that fails ends in an Error. Needs a GPU; tests/gpu/run runs them.
#include "runtime/stage/gpu_spill.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <random>

#include "kernels/core/error.h"
#include "kernels/cuda/device.h"
#include "tests/support/spill_files.h"
#include "tests/support/tiny_job.h"

namespace spillway::testing {
namespace {

using Logits = std::vector<std::vector<float>>;  // of every row of every step

TinyOptions seven_layers(const char* architecture, QuantType type) {
  TinyOptions options;
  options.architecture = architecture;
  options.n_layers = 7;
  options.dim = 128;
  options.heads = 8;
  options.kv_heads = 4;
  options.head_dim = 32;
  options.ff = 192;
  options.vocab = 160;
  options.type = type;
  if (options.architecture == "gemma3") options.window = 9;
  return options;
}

Plan gpu_plan(const TinyJob& job, const std::string& places) {
  const cuda::DeviceInfo device = cuda::select_device(0);
  ClusterSpec cluster = assumed_cluster(1);
  GpuSpec& gpu = cluster.ranks[0].gpu;
  gpu.name = device.name;
  gpu.uuid = device.uuid;
  gpu.total_bytes = device.total_bytes;
  gpu.free_bytes = device.free_bytes;
  PlanRequest request = tiny_request();
  request.kv_type = KvType::kF16;
  request.device = DeviceChoice::kGpu;
  request.places = parse_places(places);
  return make_plan(job.spec, cluster, request);
}

// Two sequences whose pages lie in turns.
class Steps {
 public:
  Steps(TinyRank& rank, Logits& out)
      : rank_(rank),
        out_(out),
        batch_(rank.plan.limits, rank.plan.kv.n_pages),
        result_(rank.plan.limits, 1) {}

  // So many rows of either.
  void run(int64_t a, int64_t b) {
    batch_.clear();
    append(0, a);
    append(1, b);
    rank_.pipeline.forward(batch_, &result_);
    for (int64_t i = 0; i < result_.n_rows; ++i) {
      const auto& whole = result_.rows[static_cast<size_t>(i)].whole;
      out_.emplace_back(whole.begin(), whole.end());
    }
  }

  // Prompts, decode of both, a chunk as short as the CPU takes, decode of one, chunks of both.
  void all_kinds() {
    run(40, 0);
    run(0, 21);
    for (int i = 0; i < 6; ++i) run(1, 1);
    run(5, 0);
    for (int i = 0; i < 3; ++i) run(1, 0);
    run(12, 12);
  }

 private:
  void append(size_t sequence, int64_t n) {
    if (n == 0) return;
    const auto id = static_cast<int32_t>(sequence);
    const int64_t at = rows_[sequence];
    const std::vector<int32_t> all = tiny_tokens(at + n, 160, 7 + static_cast<uint32_t>(id));
    TinyJob::append(batch_, rank_.plan, {all.begin() + at, all.end()}, at, id, id, 2);
    rows_[sequence] += n;
  }

  TinyRank& rank_;
  Logits& out_;
  StepBatch batch_;
  StepResult result_;
  std::array<int64_t, 2> rows_{};
};

Logits logits_of(const TinyJob& job, const std::string& places) {
  Logits out;
  job.run(
      gpu_plan(job, places),
      [&](TinyRank& rank) {
        rank.pipeline.connect(CommChoice::kAuto);
        Steps(rank, out).all_kinds();
      },
      2);
  return out;
}

struct Case {
  const char* name;
  const char* places;
  const char* same_as;
};

class GpuSpillTest : public ::testing::TestWithParam<Case> {};

TEST_P(GpuSpillTest, BitsOfWeightsThatLieElsewhere) {
  const struct {
    const char* architecture;
    QuantType type;
  } kModels[] = {{"llama", QuantType::kQ8_0},
                 {"llama", QuantType::kF16},
                 {"qwen3", QuantType::kQ4_1},
                 {"gemma3", QuantType::kQ8_0}};
  for (const auto& [architecture, type] : kModels) {
    SCOPED_TRACE(std::string(architecture) + " " + quant_info(type).name);
    const TinyJob job(seven_layers(architecture, type));
    const Logits expected = logits_of(job, GetParam().same_as);
    ASSERT_EQ(expected.size(), 40U + 21U + 12U + 5U + 3U + 24U);
    for (const std::vector<float>& row : expected) {
      ASSERT_EQ(row.size(), 160U);
      for (const float logit : row) ASSERT_TRUE(std::isfinite(logit));
    }
    // Twice: what one run leaves in slots, files and graphs is nothing to the next.
    for (int i = 0; i < 2; ++i) EXPECT_EQ(logits_of(job, GetParam().places), expected);
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, GpuSpillTest,
    ::testing::Values(
        Case{"streamed", "layers all = streamed", "layers all = resident"},
        Case{"disk", "layers all = disk", "layers all = resident"},
        Case{"feed_forward", "layers all ffn = disk", "layers all = resident"},
        Case{"one_half", "layer 3 ffn = disk", "layers all = resident"},
        Case{"two_halves", "layer 6 = disk", "layers all = resident"},
        Case{"four_halves", "layers 0-1 = disk", "layers all = resident"},
        Case{"disk_and_streamed",
             "layers 0-2 = disk; layers 4-6 ffn = streamed; layer 5 attn = disk",
             "layers all = resident"},
        Case{"beside_the_cpu",
             "layers 0-1 = disk; layers 2-3 ffn = cpu; layer 4 ffn = hybrid 0.5; layer 5 = disk",
             "layers 0-1 = streamed; layers 2-3 ffn = cpu; layer 4 ffn = hybrid 0.5"},
        Case{"cpu_in_turns",
             "layers all ffn = cpu; layers 1-1 ffn = disk; layer 3 = disk; layers 5-6 = disk; "
             "layer 6 ffn = hybrid 0.5",
             "layers all ffn = cpu; layers 1-1 ffn = streamed; layer 3 = streamed; "
             "layers 5-6 = resident; layer 6 ffn = hybrid 0.5"}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(GpuSpill, MemoryIsTheLedgers) {
  const TinyJob job(seven_layers("llama", QuantType::kQ8_0));
  for (const char* places : {"layers all = disk", "layers 0-2 = disk; layers 4-6 ffn = cpu"}) {
    const Plan plan = gpu_plan(job, places);
    job.run(plan, [&](TinyRank& rank) {
      EXPECT_EQ(rank.pipeline.arena_bytes(),
                plan.rank_bytes(0, "", "host") - plan.rank_bytes(0, "program", "host"));
    });
  }
}

// Loaded, and gone before or after a step, while the disk's threads wait for slots.
TEST(GpuSpill, EndsWhileTheDiskIsReadAhead) {
  const TinyJob job(seven_layers("llama", QuantType::kQ8_0));
  const Plan plan = gpu_plan(job, "layers all = disk");
  Logits out;
  job.run(plan, [](TinyRank&) {});
  job.run(plan, [&](TinyRank& rank) {
    rank.pipeline.connect(CommChoice::kAuto);
    Steps(rank, out).run(1, 0);
  });
  EXPECT_EQ(out.size(), 1U);
}

// At a prompt and at a graph: the step ends, its Error names file and half, nothing comes of it,
// and the GPU is free for the next job.
TEST(GpuSpill, AFileThatEndsEarlyIsAnError) {
  const TinyJob job(seven_layers("llama", QuantType::kQ8_0));
  const std::string places = "layers all = disk; layers 2-3 ffn = cpu";
  const Logits expected = logits_of(job, places);
  for (const bool decode : {false, true}) {
    SCOPED_TRACE(decode ? "decode" : "prompt");
    Logits out;
    std::string text = "nothing was thrown";
    try {
      job.run(
          gpu_plan(job, places),
          [&](TinyRank& rank) {
            rank.pipeline.connect(CommChoice::kAuto);
            Steps steps(rank, out);
            steps.run(40, 0);
            ASSERT_EQ(cut_spill_files(job.spill_folder(), 0), 1);
            // Slots that were filled before that may last for a part of a step, not for two.
            for (int i = 0; i < 2; ++i) steps.run(decode ? 1 : 12, 0);
            ADD_FAILURE() << "steps without weights";
          },
          2);
    } catch (const Error& error) {
      text = error.what();
    }
    EXPECT_NE(text.find("reading the spill file failed"), std::string::npos) << text;
    EXPECT_NE(text.find("it ends there"), std::string::npos) << text;
    EXPECT_NE(text.find(job.spill_folder()), std::string::npos) << text;
    EXPECT_NE(text.find("weights on disk of rank 0, layer "), std::string::npos) << text;
    EXPECT_EQ(out.size(), 40U);
  }
  EXPECT_EQ(logits_of(job, places), expected);
}

// Past the page cache as well, where the file system can.
TEST(GpuSpill, FilesAreReadIntoPinnedMemory) {
  cuda::select_device(0);
  constexpr int64_t kBytes = 8 << 20;
  const TempDir dir;
  SpillFile file(dir.file("spill"), "weights", kBytes);
  std::vector<std::byte> data(static_cast<size_t>(kBytes));
  std::mt19937 random(5);
  for (std::byte& b : data) b = static_cast<std::byte>(random());
  file.write(0, data);
  ASSERT_EQ(forget_spill_files(dir.file("spill")), 1);
  Arena memory("test", kBytes);
  std::byte* to = memory.take(kBytes);
  const cuda::PinnedRange pinned("test", to, kBytes);
  file.read(0, {to, static_cast<size_t>(kBytes)});
  EXPECT_TRUE(std::equal(data.begin(), data.end(), to));
}

}  // namespace
}  // namespace spillway::testing

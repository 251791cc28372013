// A whole file in another type: what is kept, what changes, and every way in which a run must end
// without a file under the final name.
#include "runtime/model/quantize_file.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <random>
#include <string>

#include "kernels/core/error.h"
#include "kernels/core/half.h"
#include "kernels/cpu/quantize.h"
#include "tests/support/gguf_builder.h"
#include "tests/support/temp_dir.h"

namespace spillway::testing {
namespace {

namespace fs = std::filesystem;
using enum QuantType;

std::string halves(const std::vector<float>& values) {
  std::string bytes;
  for (const float value : values) internal::put<uint16_t>(bytes, f32_to_f16(value));
  return bytes;
}

std::vector<float> random_values(int64_t n) {
  std::mt19937 random(11);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  std::vector<float> values(static_cast<size_t>(n));
  for (float& value : values) value = f16_to_f32(f32_to_f16(normal(random)));
  return values;
}

constexpr int64_t kCols = 256;
constexpr int64_t kRows = 9000;  // 2.3 million values: more than a slice

GgufBuilder model(const std::vector<float>& big) {
  GgufBuilder builder;
  builder.set_string("general.architecture", "llama")
      .set_u32("general.file_type", 1)
      .set_u32("llama.block_count", 1)
      .set_strings("tokenizer.ggml.tokens", {"a", "b"})
      .add_tensor("token_embd.weight", {kCols, kRows}, kF16, halves(big))
      .add_f32("blk.0.attn_norm.weight", {4}, {1, 2, 3, 4})
      .add_tensor("blk.0.ffn_up.weight", {32, 3}, kF16, halves(random_values(96)));
  return builder;
}

class QuantizeFileTest : public ::testing::Test {
 protected:
  std::string out() const { return dir_.file("out.gguf"); }

  void run(
      const Gguf& source, const char* mix, bool replace = false,
      const std::function<void(int64_t, int64_t)>& step = [](int64_t, int64_t) {}) {
    const QuantizePlan plan = plan_quantize(source, *find_quant_mix(mix), {});
    check_target(source, plan, out(), replace);
    quantize_file(exec_, source, plan, out(), replace, step);
    EXPECT_EQ(static_cast<int64_t>(fs::file_size(out())), plan.file_bytes);
  }

  // What the Error says; "" when there was none. Nothing may be left of the file.
  std::string error_of(
      const Gguf& source, const char* mix,
      const std::function<void(int64_t, int64_t)>& step = [](int64_t, int64_t) {}) {
    const bool was_there = fs::exists(out());
    try {
      run(source, mix, false, step);
    } catch (const Error& error) {
      EXPECT_EQ(fs::exists(out()), was_there);
      EXPECT_FALSE(fs::exists(GgufWriter::temporary_path(out())));
      return error.what();
    }
    return "";
  }

  TempDir dir_;
  ThreadPool pool_{2};
  cpu::Exec exec_{&pool_, cpu::best_isa()};
};

TEST_F(QuantizeFileTest, KeepsMetadataAndQuantisesMatrices) {
  const std::vector<float> big = random_values(kCols * kRows);
  const Gguf source = Gguf::open(model(big).write(dir_.file("in.gguf")));
  int64_t last = 0;
  run(source, "Q4_K_M", false, [&](int64_t done, int64_t total) {
    EXPECT_GT(done, last);
    EXPECT_LE(done, total);
    last = done;
  });
  const Gguf made = Gguf::open(out());
  EXPECT_EQ(made.require_uint("general.file_type"), 15u);
  EXPECT_EQ(made.require_uint("general.quantization_version"), 2u);
  EXPECT_EQ(made.require_uint("llama.block_count"), 1u);
  EXPECT_EQ(made.find("tokenizer.ggml.tokens")->as_strings()->at(1), "b");
  ASSERT_EQ(made.tensors().size(), 3u);
  const GgufTensor& embedding = made.tensors()[0];
  EXPECT_EQ(embedding.type, kQ6_K);  // it stands for the output as well
  EXPECT_EQ(made.tensors()[1].type, kF32);
  EXPECT_EQ(made.tensors()[2].type, kQ5_0);
  // In slices and by threads it is what it would be at once.
  std::vector<std::byte> expected(static_cast<size_t>(embedding.bytes));
  cpu::quantize(exec_, kQ6_K, big, expected.data());
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), embedding.data));
  EXPECT_EQ(std::memcmp(made.tensors()[1].data, source.tensors()[1].data, 16), 0);
}

TEST_F(QuantizeFileTest, PartsBecomeOneFile) {
  const std::vector<float> big = random_values(kCols * kRows);
  const std::string whole = model(big).write(dir_.file("in.gguf"));
  const auto parts = model(big).write_split(dir_.file("part"), 3);
  run(Gguf::open(whole), "Q8_0");
  const std::string expected = read_file(out());
  run(Gguf::open(parts[1]), "Q8_0", true);
  const Gguf made = Gguf::open(out());
  EXPECT_EQ(made.find("split.count"), nullptr);
  EXPECT_EQ(made.find("split.no"), nullptr);
  EXPECT_EQ(read_file(out()), expected);
}

TEST_F(QuantizeFileTest, SaysWhatIsQuantisedTwice) {
  const Gguf source = Gguf::open(model(random_values(kCols * kRows)).write(dir_.file("in.gguf")));
  EXPECT_TRUE(plan_quantize(source, *find_quant_mix("Q8_0"), {}).quantised_twice.empty());
  run(source, "Q8_0");
  const QuantizePlan again = plan_quantize(Gguf::open(out()), *find_quant_mix("Q4_0"), {});
  EXPECT_EQ(again.quantised_twice,
            (std::vector<std::string>{"token_embd.weight", "blk.0.ffn_up.weight"}));
  EXPECT_TRUE(
      plan_quantize(Gguf::open(out()), *find_quant_mix("Q8_0"), {}).quantised_twice.empty());
}

TEST_F(QuantizeFileTest, BackToFloatsIsWhatTheBlocksSay) {
  const Gguf source = Gguf::open(model(random_values(kCols * kRows)).write(dir_.file("in.gguf")));
  run(source, "Q8_0");
  fs::rename(out(), dir_.file("q8.gguf"));
  const Gguf eight = Gguf::open(dir_.file("q8.gguf"));
  run(eight, "F32");
  const Gguf floats = Gguf::open(out());
  std::vector<float> expected(static_cast<size_t>(kCols * kRows));
  cpu::dequantize(kQ8_0, eight.tensors()[0].data, expected);
  EXPECT_EQ(floats.tensors()[0].type, kF32);
  EXPECT_EQ(std::memcmp(expected.data(), floats.tensors()[0].data, expected.size() * 4), 0);
}

TEST_F(QuantizeFileTest, BadWeightsAreNamedWithTheirPlace) {
  std::vector<float> big = random_values(kCols * kRows);
  big[kCols * 8999 + 17] = std::nanf("");
  const std::string nan = error_of(Gguf::open(model(big).write(dir_.file("a.gguf"))), "Q4_K_M");
  for (const char* part : {"NaN", "row 8999, column 17", "'token_embd.weight'", "a.gguf"}) {
    EXPECT_NE(nan.find(part), std::string::npos) << nan;
  }
  big[5] = -INFINITY;
  const std::string infinite = error_of(Gguf::open(model(big).write(dir_.file("b.gguf"))), "Q8_0");
  EXPECT_NE(infinite.find("infinite at row 0, column 5"), std::string::npos) << infinite;
  GgufBuilder builder;
  builder.set_string("general.architecture", "llama").add_f32("a.weight", {2, 2}, {1, 2, 3, 1e6f});
  const std::string large = error_of(Gguf::open(builder.write(dir_.file("c.gguf"))), "F16");
  EXPECT_NE(large.find("too large for F16"), std::string::npos) << large;
  EXPECT_NE(large.find("row 1, column 1"), std::string::npos) << large;
}

TEST_F(QuantizeFileTest, TypesThatCannotBeReadAreNamed) {
  GgufBuilder builder;
  builder.set_string("general.architecture", "llama")
      .add_tensor("a.weight", {256, 2}, kTQ1_0, std::string(108, '\0'));
  const std::string said = error_of(Gguf::open(builder.write(dir_.file("a.gguf"))), "Q8_0");
  EXPECT_NE(said.find("TQ1_0"), std::string::npos) << said;
  EXPECT_NE(said.find("'a.weight'"), std::string::npos) << said;
}

TEST_F(QuantizeFileTest, WhatStepThrowsEndsTheRun) {
  const Gguf source = Gguf::open(model(random_values(kCols * kRows)).write(dir_.file("in.gguf")));
  int left = 2;
  const std::string said = error_of(source, "Q4_0", [&](int64_t, int64_t) {
    if (--left == 0) throw Error("stopped");
  });
  EXPECT_EQ(said, "stopped");
}

// The new file is written beside its name first: what lies there may be the source as well.
TEST_F(QuantizeFileTest, ASourceAtTheTemporaryNameIsRefusedAndKept) {
  const std::string temporary = GgufWriter::temporary_path(out());
  const std::string in = model(random_values(kCols * kRows)).write(dir_.file("in.gguf"));
  const std::string before = read_file(in);
  const auto refused = [&](const std::string& from) {
    const Gguf source = Gguf::open(from);
    try {
      run(source, "F16", true);
      ADD_FAILURE() << from << " is taken";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(temporary), std::string::npos) << error.what();
    }
    EXPECT_EQ(fs::file_size(from), before.size());
  };
  fs::create_symlink(in, temporary);
  refused(in);
  fs::remove(temporary);
  fs::create_hard_link(in, temporary);
  refused(in);
  refused(temporary);
  EXPECT_EQ(read_file(in), before);
  EXPECT_FALSE(fs::exists(out()));
}

TEST_F(QuantizeFileTest, TargetsThatWouldHurtAreRefused) {
  const std::string in = model(random_values(kCols * kRows)).write(dir_.file("in.gguf"));
  const Gguf source = Gguf::open(in);
  const QuantizePlan plan = plan_quantize(source, *find_quant_mix("Q8_0"), {});
  EXPECT_THROW(check_target(source, plan, in, true), Error);
  fs::create_hard_link(in, dir_.file("link.gguf"));
  EXPECT_THROW(check_target(source, plan, dir_.file("link.gguf"), true), Error);
  const std::string there = dir_.write("there.gguf", "x");
  EXPECT_THROW(check_target(source, plan, there, false), Error);
  EXPECT_NO_THROW(check_target(source, plan, there, true));
  EXPECT_THROW(check_target(source, plan, "/dev/null", true), Error);
  EXPECT_THROW(check_target(source, plan, dir_.file("no/folder.gguf"), false), Error);
  QuantizePlan enormous = plan;
  enormous.file_bytes = int64_t{1} << 60;
  try {
    check_target(source, enormous, out(), false);
    FAIL() << "no disk has 2^60 bytes free";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("1152921504606846976"), std::string::npos);
  }
}

}  // namespace
}  // namespace spillway::testing

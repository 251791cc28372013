// The whole pipeline on one rank against the reference in doubles (tests/support/naive_llama.h).
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "tests/support/naive_llama.h"
#include "tests/support/tiny_job.h"

namespace spillway::testing {
namespace {

// The largest difference of two logits, over the spread of the reference's logits: 0.01 moves no
// choice that was not already a near-tie.
double relative_error(const std::vector<std::vector<float>>& logits,
                      const std::vector<NaiveLlama::Vector>& reference) {
  EXPECT_EQ(logits.size(), reference.size());
  double most = 0;
  double squares = 0;
  double n = 0;
  for (size_t p = 0; p < reference.size() && p < logits.size(); ++p) {
    EXPECT_EQ(logits[p].size(), reference[p].size());
    for (size_t i = 0; i < reference[p].size(); ++i, ++n) {
      most = std::max(most, std::fabs(static_cast<double>(logits[p][i]) - reference[p][i]));
      squares += reference[p][i] * reference[p][i];
    }
  }
  const double spread = std::sqrt(squares / n);
  // Random weights that told nothing apart would make every comparison pass.
  EXPECT_GT(spread, 0.5);
  return most / spread;
}

double error_of(const TinyOptions& options, PlanRequest request = tiny_request()) {
  const TinyJob job(options);
  const std::vector<int32_t> tokens = tiny_tokens(40, options.vocab);
  return relative_error(job.logits(job.plan(request), tokens),
                        NaiveLlama(job.model).logits(tokens));
}

constexpr double kF32Tolerance = 1e-4;

TEST(LogitsTest, PlainLlama) { EXPECT_LT(error_of({}), kF32Tolerance); }

TEST(LogitsTest, TheReferenceIsSensitive) {
  // A reference of another model must not pass: the comparison can fail.
  TinyOptions options;
  const TinyJob job(options);
  const std::vector<int32_t> tokens = tiny_tokens(40, options.vocab);
  const auto logits = job.logits(job.plan(tiny_request()), tokens);
  options.architecture = "qwen2";
  EXPECT_GT(relative_error(logits, NaiveLlama(TinyModel(options)).logits(tokens)), 0.05);
  options.architecture = "llama";
  options.rope_base = 9000;
  EXPECT_GT(relative_error(logits, NaiveLlama(TinyModel(options)).logits(tokens)), 1e-3);
}

TEST(LogitsTest, PairsOfHalves) {
  TinyOptions options;
  options.architecture = "qwen2";
  EXPECT_LT(error_of(options), kF32Tolerance);
}

TEST(LogitsTest, TiedOutput) {
  TinyOptions options;
  options.tied = true;
  EXPECT_LT(error_of(options), kF32Tolerance);
}

TEST(LogitsTest, AllBiasesInBothVectorTypes) {
  TinyOptions options;
  options.biases = true;
  EXPECT_LT(error_of(options), kF32Tolerance);
  options.vector_type = QuantType::kF16;
  options.architecture = "qwen2";
  EXPECT_LT(error_of(options), kF32Tolerance);
}

TEST(LogitsTest, HeadsAndKvHeads) {
  for (const auto& [heads, kv_heads] :
       {std::pair<int64_t, int64_t>{4, 1}, {4, 4}, {6, 3}, {9, 3}, {1, 1}, {5, 1}}) {
    SCOPED_TRACE(std::to_string(heads) + " heads, " + std::to_string(kv_heads) + " KV heads");
    TinyOptions options;
    options.heads = heads;
    options.kv_heads = kv_heads;
    EXPECT_LT(error_of(options), kF32Tolerance);
  }
}

TEST(LogitsTest, OddSizes) {
  TinyOptions options;
  options.dim = 52;
  options.ff = 71;
  options.vocab = 97;
  options.head_dim = 6;
  options.heads = 3;
  options.kv_heads = 3;
  options.n_layers = 1;
  EXPECT_LT(error_of(options), kF32Tolerance);
}

TEST(LogitsTest, RopeTurnsAPartOfTheHead) {
  TinyOptions options;
  options.n_rot = 8;
  EXPECT_LT(error_of(options), kF32Tolerance);
  options.architecture = "qwen2";
  EXPECT_LT(error_of(options), kF32Tolerance);
}

TEST(LogitsTest, RopeScalings) {
  for (const char* architecture : {"llama", "qwen2"}) {
    SCOPED_TRACE(architecture);
    TinyOptions options;
    options.architecture = architecture;
    options.rope_base = 500000;
    EXPECT_LT(error_of(options), kF32Tolerance);
    options.rope_base = 1000;
    options.rope_scaling = "linear";
    options.rope_factor = 4;
    EXPECT_LT(error_of(options), kF32Tolerance);
    options.rope_scaling = "yarn";
    options.rope_original_context = 64;
    EXPECT_LT(error_of(options), kF32Tolerance);
    options.rope_scaling = "";
    options.rope_factor = 1;
    options.rope_freqs = {1, 1, 1.5, 2, 3.25, 6, 8, 8};
    EXPECT_LT(error_of(options), kF32Tolerance);
  }
}

// A small Gemma 3: a window of 7 on two of three layers, its own RoPE base there.
TinyOptions tiny_gemma() {
  TinyOptions options;
  options.architecture = "gemma3";
  options.n_layers = 3;
  options.head_dim = 32;  // heads * head_dim is not dim
  options.window = 7;
  options.window_period = 3;
  options.rope_base = 1000000;
  options.tied = true;
  return options;
}

TEST(LogitsTest, Gemma) {
  TinyOptions options = tiny_gemma();
  EXPECT_LT(error_of(options), kF32Tolerance);
  options.window_flags = {0, 1, 1};
  options.window_rope_base = 500;
  EXPECT_LT(error_of(options), kF32Tolerance);
  options.biases = true;
  options.rope_scaling = "linear";  // of the layer without a window
  options.rope_factor = 8;
  EXPECT_LT(error_of(options), kF32Tolerance);
}

TEST(LogitsTest, GemmaWindowsOfEveryLength) {
  // 40 tokens in pages of 32: windows of one token, below and above a page, beyond the text.
  for (const int64_t window : {1, 2, 31, 32, 33, 39, 40, 41, 4096}) {
    SCOPED_TRACE("window " + std::to_string(window));
    TinyOptions options = tiny_gemma();
    options.window = window;
    EXPECT_LT(error_of(options), kF32Tolerance);
  }
}

TEST(LogitsTest, TheGemmaReferenceIsSensitive) {
  const TinyJob job(tiny_gemma());
  const std::vector<int32_t> tokens = tiny_tokens(40, tiny_gemma().vocab);
  const auto logits = job.logits(job.plan(tiny_request()), tokens);
  const auto error_against = [&](const std::function<void(TinyOptions&)>& change) {
    TinyOptions options = tiny_gemma();
    change(options);
    return relative_error(logits, NaiveLlama(TinyModel(options)).logits(tokens));
  };
  EXPECT_GT(error_against([](TinyOptions& o) { o.window = 6; }), 1e-3);
  EXPECT_GT(error_against([](TinyOptions& o) { o.window = 8; }), 1e-3);
  EXPECT_GT(error_against([](TinyOptions& o) { o.window_period = 2; }), 1e-3);
  EXPECT_GT(error_against([](TinyOptions& o) { o.window_rope_base = 9000; }), 1e-3);
}

TEST(LogitsTest, NormsOfHeads) {
  TinyOptions options;
  options.architecture = "qwen3";
  options.head_dim = 24;
  EXPECT_LT(error_of(options), kF32Tolerance);
}

TEST(LogitsTest, HalfWeights) {
  // The products read the half floats as they are; only sums round.
  TinyOptions options;
  options.type = QuantType::kF16;
  EXPECT_LT(error_of(options), kF32Tolerance);
}

TEST(LogitsTest, QuantizedWeights) {
  // Against a reference that rounds the inputs of products alike, what is left is float against
  // double, and now and then a value between two codes that falls to the other side: 1/127 of a
  // block's greatest. Against the exact reference the rounding itself shows, in every product.
  TinyOptions options;
  options.heads = 4;
  options.head_dim = 32;
  options.dim = 128;
  options.ff = 160;
  for (const QuantType type : {QuantType::kQ8_0, QuantType::kQ4_1}) {
    SCOPED_TRACE(quant_info(type).name);
    options.type = type;
    const TinyJob job(options);
    const std::vector<int32_t> tokens = tiny_tokens(40, options.vocab);
    const auto logits = job.logits(job.plan(tiny_request()), tokens);
    EXPECT_LT(relative_error(logits, NaiveLlama(job.model, true).logits(tokens)), 0.02);
    const double exact = relative_error(logits, NaiveLlama(job.model).logits(tokens));
    EXPECT_LT(exact, 0.25);
    EXPECT_GT(exact, 0.02);
  }
}

TEST(LogitsTest, HalfKeysAndValues) {
  PlanRequest request = tiny_request();
  request.kv_type = KvType::kF16;
  const double error = error_of({}, request);
  EXPECT_LT(error, 0.01);
  EXPECT_GT(error, 1e-6);
}

TEST(LogitsTest, ThreadsAndInstructionSetsGiveTheSameBits) {
  for (const QuantType type : {QuantType::kF32, QuantType::kQ8_0}) {
    TinyOptions options;
    options.type = type;
    options.head_dim = 32;
    const TinyJob job(options);
    const Plan plan = job.plan(tiny_request());
    const auto tokens = tiny_tokens(33, options.vocab);
    const auto expected = job.logits(plan, tokens, 64, 1, cpu::Isa::kScalar);
    for (int isa = 0; isa <= static_cast<int>(cpu::best_isa()); ++isa) {
      SCOPED_TRACE(cpu::isa_name(static_cast<cpu::Isa>(isa)));
      EXPECT_EQ(job.logits(plan, tokens, 64, 3, static_cast<cpu::Isa>(isa)), expected);
    }
  }
}

}  // namespace
}  // namespace spillway::testing

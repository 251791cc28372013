// read_model_spec: what it reads from good files, with every default, and what it says about bad
// ones: which key or tensor, which file, why.
#include "runtime/model/spec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <tuple>

#include "tests/support/spec_reading.h"

namespace spillway::testing {
namespace {

TEST(SpecTest, ReadsEveryNumber) {
  TinyOptions options;
  options.n_layers = 3;
  options.heads = 6;
  options.kv_heads = 2;
  options.head_dim = 24;
  options.dim = 64;
  options.ff = 96;
  options.vocab = 77;
  options.context = 2048;
  options.n_rot = 16;
  options.rope_base = 250000;
  options.type = QuantType::kF16;
  const ModelSpec spec = read_spec(options);
  EXPECT_EQ(spec.architecture, "llama");
  EXPECT_EQ(spec.name, "tiny");
  EXPECT_EQ(spec.n_layers, 3);
  EXPECT_EQ(spec.n_heads, 6);
  EXPECT_EQ(spec.n_kv_heads, 2);
  EXPECT_EQ(spec.heads_per_kv(), 3);
  EXPECT_EQ(spec.head_dim, 24);
  EXPECT_EQ(spec.dim, 64);
  EXPECT_EQ(spec.ff_dim, 96);
  EXPECT_EQ(spec.vocab_size, 77);
  EXPECT_EQ(spec.context_length, 2048);
  EXPECT_NEAR(spec.norm_eps, 1e-5, 1e-12);
  EXPECT_EQ(spec.rope.n_rot, 16);
  EXPECT_EQ(spec.rope.base, 250000);
  EXPECT_EQ(spec.rope.scaling, RopeScaling::kNone);
  EXPECT_FALSE(spec.rope.halves);
  EXPECT_TRUE(spec.rope.frequency_divisors.empty());
  ASSERT_EQ(spec.layers.size(), 3U);
  const LayerSpec& layer = spec.layers[2];
  for (const auto& [matrix, rows, cols] : {std::tuple{layer.q, 144, 64},
                                           {layer.k, 48, 64},
                                           {layer.v, 48, 64},
                                           {layer.o, 64, 144},
                                           {layer.gate, 96, 64},
                                           {layer.up, 96, 64},
                                           {layer.down, 64, 96},
                                           {spec.embedding, 77, 64},
                                           {spec.output, 77, 64}}) {
    EXPECT_EQ(matrix.type, QuantType::kF16);
    EXPECT_EQ(matrix.rows, rows);
    EXPECT_EQ(matrix.cols, cols);
  }
  EXPECT_FALSE(layer.q_bias || layer.k_bias || layer.v_bias || layer.o_bias);
  EXPECT_FALSE(layer.gate_bias || layer.up_bias || layer.down_bias);
  EXPECT_FALSE(spec.tied_output());
  EXPECT_GT(spec.file_bytes, 0);
}

TEST(SpecTest, Defaults) {
  TinyOptions options;
  options.heads = options.kv_heads = 4;
  options.tied = true;
  options.without = {"general.name", "llama.attention.head_count_kv", "llama.attention.key_length",
                     "llama.attention.layer_norm_rms_epsilon", "llama.rope.freq_base"};
  const ModelSpec spec = read_spec(options);
  EXPECT_EQ(spec.name, "llama");
  EXPECT_EQ(spec.n_kv_heads, 4);
  EXPECT_EQ(spec.head_dim, 16);
  EXPECT_EQ(spec.rope.n_rot, 16);
  EXPECT_EQ(spec.rope.base, 10000);
  EXPECT_EQ(spec.norm_eps, 1e-5);
  EXPECT_TRUE(spec.tied_output());
}

TEST(SpecTest, BiasesArePresentOneByOne) {
  TinyOptions options;
  options.architecture = "qwen2";
  options.biases = true;
  options.without = {"blk.0.attn_output.bias", "blk.1.ffn_up.bias"};
  const ModelSpec spec = read_spec(options);
  EXPECT_TRUE(spec.rope.halves);
  EXPECT_TRUE(spec.layers[0].q_bias && spec.layers[0].k_bias && spec.layers[0].v_bias);
  EXPECT_FALSE(spec.layers[0].o_bias);
  EXPECT_TRUE(spec.layers[1].o_bias);
  EXPECT_TRUE(spec.layers[0].up_bias);
  EXPECT_FALSE(spec.layers[1].up_bias);
  EXPECT_TRUE(spec.layers[1].gate_bias && spec.layers[1].down_bias);
}

TEST(SpecTest, RopeScalings) {
  TinyOptions options;
  options.rope_scaling = "linear";
  options.rope_factor = 4;
  EXPECT_EQ(read_spec(options).rope.scaling, RopeScaling::kLinear);
  EXPECT_EQ(read_spec(options).rope.factor, 4);
  options.rope_scaling = "none";  // the factor means nothing then
  EXPECT_EQ(read_spec(options).rope.scaling, RopeScaling::kNone);
  EXPECT_EQ(read_spec(options).rope.factor, 1);

  TinyOptions old;
  old.numbers["llama.rope.scale_linear"] = 2.5;
  EXPECT_EQ(read_spec(old).rope.scaling, RopeScaling::kLinear);
  EXPECT_EQ(read_spec(old).rope.factor, 2.5);

  TinyOptions yarn;
  yarn.rope_scaling = "yarn";
  yarn.rope_factor = 8;
  ModelSpec spec = read_spec(yarn);
  EXPECT_EQ(spec.rope.scaling, RopeScaling::kYarn);
  EXPECT_EQ(spec.rope.original_context, yarn.context);
  EXPECT_EQ(spec.rope.yarn_extrapolation, 1);
  EXPECT_EQ(spec.rope.yarn_attention, 1);
  EXPECT_EQ(spec.rope.yarn_beta_fast, 32);
  EXPECT_EQ(spec.rope.yarn_beta_slow, 1);
  yarn.rope_original_context = 64;
  yarn.numbers["llama.rope.scaling.yarn_ext_factor"] = 0.5;
  yarn.numbers["llama.rope.scaling.attn_factor"] = 0.75;
  yarn.numbers["llama.rope.scaling.yarn_beta_fast"] = 16;
  yarn.numbers["llama.rope.scaling.yarn_beta_slow"] = 2;
  spec = read_spec(yarn);
  EXPECT_EQ(spec.rope.original_context, 64);
  EXPECT_EQ(spec.rope.yarn_extrapolation, 0.5);
  EXPECT_EQ(spec.rope.yarn_attention, 0.75);
  EXPECT_EQ(spec.rope.yarn_beta_fast, 16);
  EXPECT_EQ(spec.rope.yarn_beta_slow, 2);

  TinyOptions freqs;
  freqs.rope_freqs = {1, 1, 1, 1, 2, 4, 8, 8};
  EXPECT_EQ(read_spec(freqs).rope.frequency_divisors, freqs.rope_freqs);
}

TEST(SpecTest, HeaderHashFollowsTheHeader) {
  TinyOptions options;
  const uint64_t hash = read_spec(options).header_hash;
  EXPECT_EQ(read_spec(options).header_hash, hash);
  options.context = 129;
  EXPECT_NE(read_spec(options).header_hash, hash);
}

TEST(SpecErrorTest, UnknownArchitectureNamesTheKnownOnes) {
  expect_spec_error([](TinyOptions& o) { o.architecture = "mamba"; },
                    {"architecture mamba is not supported", "llama, qwen2, qwen3, gemma3"});
  expect_spec_error([](TinyOptions& o) { o.without = {"general.architecture"}; },
                    {"general.architecture"});
}

TEST(SpecErrorTest, EveryRequiredTensorIsMissed) {
  TinyOptions options;
  options.n_layers = 1;
  for (const char* name :
       {"token_embd.weight", "output_norm.weight", "blk.0.attn_norm.weight", "blk.0.attn_q.weight",
        "blk.0.attn_k.weight", "blk.0.attn_v.weight", "blk.0.attn_output.weight",
        "blk.0.ffn_norm.weight", "blk.0.ffn_gate.weight", "blk.0.ffn_up.weight",
        "blk.0.ffn_down.weight"}) {
    expect_spec_error([&](TinyOptions& o) { o.without = {name}; },
                      {"tensor " + std::string(name) + " is missing"});
  }
  expect_spec_error([](TinyOptions& o) { o.uints["llama.block_count"] = 2; },
                    {"tensor blk.1.attn_norm.weight is missing"});
}

TEST(SpecErrorTest, WrongShapesOfEveryTensor) {
  TinyOptions options;
  options.n_layers = 1;
  options.biases = true;
  const TinyModel model(options);
  for (const char* name :
       {"output_norm.weight", "output.weight", "blk.0.attn_norm.weight", "blk.0.attn_q.weight",
        "blk.0.attn_k.weight", "blk.0.attn_v.weight", "blk.0.attn_output.weight",
        "blk.0.ffn_norm.weight", "blk.0.ffn_gate.weight", "blk.0.ffn_up.weight",
        "blk.0.ffn_down.weight", "blk.0.attn_q.bias", "blk.0.attn_k.bias", "blk.0.attn_v.bias",
        "blk.0.attn_output.bias", "blk.0.ffn_gate.bias", "blk.0.ffn_up.bias",
        "blk.0.ffn_down.bias"}) {
    std::vector<int64_t> dims = model.tensor(name).dims;
    dims.back() += 1;
    expect_spec_error(
        [&](TinyOptions& o) {
          o.biases = true;
          o.reshape[name] = dims;
        },
        {std::string(name), "shape", "at offset"});
  }
  // Transposed: as many values, another meaning.
  expect_spec_error(
      [](TinyOptions& o) {
        o.reshape["blk.0.ffn_gate.weight"] = {96, 64};
      },
      {"64 x 96", "96 x 64"});
  expect_spec_error(
      [](TinyOptions& o) {
        o.reshape["token_embd.weight"] = {32, 80};
      },
      {"token_embd.weight", "80 x 32"});
}

TEST(SpecErrorTest, TypesThatNobodyComputes) {
  expect_spec_error([](TinyOptions& o) { o.retype["blk.0.attn_q.weight"] = QuantType::kI32; },
                    {"type I32 is not supported", "blk.0.attn_q.weight"});
  expect_spec_error([](TinyOptions& o) { o.retype["blk.0.attn_norm.weight"] = QuantType::kQ8_0; },
                    {"blk.0.attn_norm.weight must be F32 or F16"});
  expect_spec_error([](TinyOptions& o) { o.retype["output_norm.weight"] = QuantType::kBF16; },
                    {"output_norm.weight must be F32 or F16"});
}

TEST(SpecErrorTest, SizesThatNoModelHas) {
  const char* required[] = {"block_count", "embedding_length", "feed_forward_length",
                            "attention.head_count", "context_length"};
  for (const std::string suffix : required) {
    const std::string key = "llama." + suffix;
    expect_spec_error([&](TinyOptions& o) { o.without = {key}; }, {key});
    expect_spec_error([&](TinyOptions& o) { o.uints[key] = 0; }, {key + " is 0"});
    expect_spec_error([&](TinyOptions& o) { o.uints[key] = 1ULL << 63; },
                      {key + " is 9223372036854"});
    expect_spec_error(
        [&](TinyOptions& o) {
          o.without = {};
          o.uints.erase(key);
          o.texts[key] = "many";
        },
        {key});
  }
  for (const std::string suffix : {"attention.head_count_kv", "attention.key_length"}) {
    const std::string key = "llama." + suffix;
    expect_spec_error([&](TinyOptions& o) { o.uints[key] = 0; }, {key + " is 0"});
    expect_spec_error([&](TinyOptions& o) { o.uints[key] = 1ULL << 40; }, {key});
  }
}

TEST(SpecErrorTest, HeadsThatDoNotFit) {
  expect_spec_error([](TinyOptions& o) { o.uints["llama.attention.head_count_kv"] = 3; },
                    {"3 KV heads do not divide 4 heads"});
  expect_spec_error([](TinyOptions& o) { o.uints["llama.attention.head_count_kv"] = 8; },
                    {"8 KV heads do not divide 4 heads"});
  expect_spec_error(
      [](TinyOptions& o) {
        o.without = {"llama.attention.key_length"};
        o.uints["llama.attention.head_count"] = 6;
      },
      {"6 heads do not divide the width 64"});
  expect_spec_error([](TinyOptions& o) { o.uints["llama.attention.key_length"] = 15; },
                    {"must be equal and even"});
  expect_spec_error([](TinyOptions& o) { o.uints["llama.attention.value_length"] = 8; },
                    {"16 (keys) and 8 (values)"});
  expect_spec_error([](TinyOptions& o) { o.uints["llama.expert_count"] = 8; }, {"8 experts"});
  expect_spec_error(
      [](TinyOptions& o) { o.numbers["llama.attention.layer_norm_rms_epsilon"] = -1; },
      {"layer_norm_rms_epsilon"});
  expect_spec_error(
      [](TinyOptions& o) { o.numbers["llama.attention.layer_norm_rms_epsilon"] = std::nan(""); },
      {"layer_norm_rms_epsilon"});
}

TEST(SpecErrorTest, RopeThatMakesNoAngles) {
  expect_spec_error([](TinyOptions& o) { o.uints["llama.rope.dimension_count"] = 18; },
                    {"rope.dimension_count is 18", "16"});
  expect_spec_error([](TinyOptions& o) { o.uints["llama.rope.dimension_count"] = 7; },
                    {"rope.dimension_count is 7"});
  for (const double base : {0.0, -1.0, std::nan(""), std::numeric_limits<double>::infinity()}) {
    expect_spec_error([&](TinyOptions& o) { o.numbers["llama.rope.freq_base"] = base; },
                      {"RoPE base"});
  }
  for (const double factor : {0.0, -2.0, std::nan("")}) {
    expect_spec_error(
        [&](TinyOptions& o) {
          o.rope_scaling = "linear";
          o.rope_factor = factor;
        },
        {"factor"});
  }
  expect_spec_error(
      [](TinyOptions& o) {
        o.rope_scaling = "longrope";
        o.rope_factor = 2;
      },
      {"\"longrope\" is not supported", "linear", "yarn"});
}

TEST(SpecErrorTest, YarnThatMakesNoAngles) {
  const auto with = [](const char* suffix, double value) {
    expect_spec_error(
        [&](TinyOptions& o) {
          o.rope_scaling = "yarn";
          o.rope_factor = 2;
          o.numbers["llama.rope." + std::string(suffix)] = value;
        },
        {"YaRN"});
  };
  with("scaling.yarn_beta_fast", 0);
  with("scaling.yarn_beta_slow", -1);
  with("scaling.yarn_ext_factor", std::nan(""));
  with("scaling.attn_factor", std::numeric_limits<double>::infinity());
  with("freq_base", 1);
  expect_spec_error(
      [](TinyOptions& o) {
        o.rope_scaling = "yarn";
        o.uints["llama.rope.scaling.original_context_length"] = 1ULL << 63;
      },
      {"original_context_length"});
}

TEST(SpecErrorTest, AVocabularyOfAnotherSizeThanTheEmbedding) {
  const TempDir dir;
  const TinyModel model{TinyOptions{}};
  for (const size_t n : {79, 80, 81}) {
    GgufBuilder builder = model.builder();
    builder.set_strings("tokenizer.ggml.tokens", std::vector<std::string>(n, "a"));
    const Gguf gguf = Gguf::open(builder.write(dir.file("m.gguf")));
    try {
      read_model_spec(gguf);
      EXPECT_EQ(n, 80U);
    } catch (const Error& error) {
      EXPECT_NE(n, 80U);
      EXPECT_EQ(error.message(),
                "has 80 rows, but tokenizer.ggml.tokens names " + std::to_string(n) + " tokens");
      EXPECT_NE(error.where().find("m.gguf, tensor token_embd.weight at offset"),
                std::string::npos);
    }
  }
}

TEST(SpecErrorTest, RopeFreqs) {
  expect_spec_error(
      [](TinyOptions& o) {
        o.rope_freqs = {1, 1, 1};
      },
      {"rope_freqs must be 8 values of F32", "rope_freqs.weight", "at offset"});
  for (const float bad : {0.0F, -1.0F, std::nanf("")}) {
    expect_spec_error([&](TinyOptions& o) { o.rope_freqs = {1, 1, 1, 1, 1, 1, 1, bad}; },
                      {"rope_freqs holds"});
  }
  expect_spec_error(
      [](TinyOptions& o) {
        o.rope_freqs = {1, 1, 1, 1, 1, 1, 1, 1};
        o.retype["rope_freqs.weight"] = QuantType::kF16;
      },
      {"values of F32"});
}

}  // namespace
}  // namespace spillway::testing

// read_model_spec of what not every architecture has: windows, norms of heads and halves, scales;
// and its answer to features and tensors that nobody computes.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "tests/support/spec_reading.h"

namespace spillway::testing {
namespace {

TinyOptions gemma(int64_t n_layers = 12) {
  TinyOptions options;
  options.architecture = "gemma3";
  options.n_layers = n_layers;
  options.rope_base = 1000000;
  options.window = 33;
  return options;
}

// The layers without a window, counted from 0.
std::vector<int64_t> layers_that_see_all(const ModelSpec& spec, int64_t window) {
  std::vector<int64_t> layers;
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    if (spec.layers[i].window == 0) {
      layers.push_back(static_cast<int64_t>(i));
    } else {
      EXPECT_EQ(spec.layers[i].window, window);
    }
  }
  return layers;
}

TEST(SpecFeaturesTest, Gemma) {
  TinyOptions options = gemma();
  ModelSpec spec = read_spec(options);
  EXPECT_EQ(spec.activation, GateActivation::kGelu);
  EXPECT_EQ(spec.embedding_scale, 8);  // sqrt(64)
  EXPECT_EQ(spec.query_scale, 0);
  EXPECT_TRUE(spec.rope.halves);
  EXPECT_EQ(spec.rope.base, 1000000);
  EXPECT_EQ(layers_that_see_all(spec, 33), (std::vector<int64_t>{5, 11}));
  const LayerSpec& layer = spec.layers[3];
  EXPECT_TRUE(layer.q_norm && layer.k_norm);
  EXPECT_TRUE(layer.attention_post_norm && layer.feed_forward_post_norm);
  ASSERT_TRUE(spec.window_rope);
  EXPECT_EQ(spec.window_rope->base, 10000);
  EXPECT_EQ(spec.window_rope->n_rot, 16);
  EXPECT_TRUE(spec.window_rope->halves);

  options.window_rope_base = 20000;
  options.window_period = 4;
  options.rope_scaling = "linear";
  options.rope_factor = 8;
  spec = read_spec(options);
  EXPECT_EQ(spec.rope.factor, 8);  // of the others only
  EXPECT_EQ(spec.window_rope->base, 20000);
  EXPECT_EQ(spec.window_rope->scaling, RopeScaling::kNone);
  EXPECT_EQ(spec.window_rope->factor, 1);
  EXPECT_EQ(layers_that_see_all(spec, 33), (std::vector<int64_t>{3, 7, 11}));

  options = gemma(3);
  options.window_flags = {1, 0, 1};
  options.numbers["gemma3.rope.local.freq_base"] = 30000;
  options.numbers["gemma3.attention.scale"] = 0.125;
  spec = read_spec(options);
  EXPECT_EQ(layers_that_see_all(spec, 33), (std::vector<int64_t>{1}));
  EXPECT_EQ(spec.window_rope->base, 30000);
  EXPECT_EQ(spec.query_scale, 0.125);
  options.uints["gemma3.attention.sliding_window"] = 1ULL << 32;  // as good as none
  EXPECT_EQ(read_spec(options).layers[0].window, 1LL << 32);
}

TEST(SpecFeaturesTest, Gemma27BScalesQueriesByItsWidth) {
  TinyOptions options = gemma(62);
  options.dim = 96;
  options.head_dim = 16;
  EXPECT_DOUBLE_EQ(read_spec(options).query_scale, 1 / std::sqrt(96.0 / 4));
}

TEST(SpecFeaturesTest, LlamaHasNothingOfGemma) {
  const ModelSpec spec = read_spec({});
  EXPECT_EQ(spec.activation, GateActivation::kSilu);
  EXPECT_EQ(spec.embedding_scale, 1);
  EXPECT_FALSE(spec.window_rope);
  const LayerSpec& layer = spec.layers[0];
  EXPECT_FALSE(layer.q_norm || layer.k_norm);
  EXPECT_FALSE(layer.attention_post_norm || layer.feed_forward_post_norm);
  EXPECT_EQ(layer.window, 0);
  TinyOptions qwen;
  qwen.architecture = "qwen3";
  EXPECT_TRUE(read_spec(qwen).layers[1].q_norm && read_spec(qwen).layers[1].k_norm);
  EXPECT_TRUE(read_spec(qwen).rope.halves);
}

TEST(SpecFeaturesErrorTest, WindowsThatCannotBe) {
  const auto expect = [](const std::function<void(TinyOptions&)>& change,
                         const std::vector<std::string>& parts) {
    expect_spec_error(
        [&](TinyOptions& o) {
          o = gemma(2);
          change(o);
        },
        parts);
  };
  const std::string window = "gemma3.attention.sliding_window";
  expect([](TinyOptions& o) { o.window = 0; }, {window});
  expect([&](TinyOptions& o) { o.uints[window] = 0; }, {window + " is 0, must be 1 to"});
  expect([&](TinyOptions& o) { o.uints[window] = UINT64_MAX; }, {window});
  expect([&](TinyOptions& o) { o.uints[window] = (1ULL << 32) + 1; }, {window + " is 4294967297"});
  expect(
      [&](TinyOptions& o) {
        o.window = 0;
        o.numbers[window] = -1;
      },
      {window});
  const std::string pattern = window + "_pattern";
  expect([&](TinyOptions& o) { o.uints[pattern] = 0; }, {pattern + " is 0, must be 1 to"});
  expect([&](TinyOptions& o) { o.uints[pattern] = 1ULL << 40; }, {pattern});
  expect([&](TinyOptions& o) { o.texts[pattern] = "local"; }, {pattern});
  expect([](TinyOptions& o) { o.window_flags = {1, 0, 1}; }, {pattern, "a flag for each of 2"});
  for (const double base : {0.0, -1.0, std::nan(""), std::numeric_limits<double>::infinity()}) {
    expect([&](TinyOptions& o) { o.window_rope_base = base; }, {"RoPE base", "with a window"});
  }
  for (const double scale : {0.0, -1.0, std::nan(""), std::numeric_limits<double>::infinity()}) {
    expect([&](TinyOptions& o) { o.numbers["gemma3.attention.scale"] = scale; },
           {"gemma3.attention.scale"});
  }
}

TEST(SpecFeaturesErrorTest, GemmaNeedsItsNorms) {
  for (const char* name : {"attn_q_norm", "attn_k_norm", "post_attention_norm", "post_ffw_norm"}) {
    const std::string tensor = "blk.0." + std::string(name) + ".weight";
    expect_spec_error(
        [&](TinyOptions& o) {
          o = gemma(1);
          o.without = {tensor};
        },
        {"tensor " + tensor + " is missing"});
    expect_spec_error(
        [&](TinyOptions& o) {
          o = gemma(1);
          o.reshape[tensor] = {8};
        },
        {tensor, "shape"});
  }
}

TEST(SpecFeaturesErrorTest, FeaturesThatNobodyComputes) {
  for (const char* suffix : {"attn_logit_softcapping", "final_logit_softcapping", "logit_scale",
                             "residual_scale", "attention.clamp_kqv", "embedding_scale"}) {
    const std::string key = "llama." + std::string(suffix);
    expect_spec_error([&](TinyOptions& o) { o.numbers[key] = 30; },
                      {key + " is 30", "not supported in llama models"});
  }
  expect_spec_error([](TinyOptions& o) { o.uints["llama.attention.sliding_window"] = 127; },
                    {"llama.attention.sliding_window is 127", "not supported in llama models"});
  TinyOptions harmless;  // values that change nothing
  harmless.numbers["llama.attn_logit_softcapping"] = 0;
  harmless.numbers["llama.logit_scale"] = 1;
  harmless.uints["llama.attention.sliding_window"] = 128;  // the context's length
  harmless.uints["llama.expert_count"] = 0;
  EXPECT_EQ(spec_error(harmless), "");
}

TEST(SpecFeaturesErrorTest, TensorsThatNobodyReads) {
  TinyOptions options;
  options.n_layers = 2;
  options.uints["llama.block_count"] = 1;  // a layer more than the file says
  EXPECT_NE(spec_error(options).find("blk.1.attn_norm.weight"), std::string::npos);
  const TempDir dir;
  GgufBuilder builder = TinyModel(TinyOptions{}).builder();
  builder.add_tensor("blk.0.ffn_gate_inp.weight", {32}, QuantType::kF32, std::string(128, '\0'));
  try {
    read_model_spec(Gguf::open(builder.write(dir.file("m.gguf"))));
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("llama models of 2 layers with such a tensor"), std::string::npos) << text;
    EXPECT_NE(text.find("blk.0.ffn_gate_inp.weight"), std::string::npos) << text;
  }
}

}  // namespace
}  // namespace spillway::testing

// ModelSpecs made of shapes: against files with the same tensors, whose types stand here by hand
// from the rules that llama.cpp's files follow; the shapes that come with the program, whose sizes
// are those of published files; and shape files that are wrong.
#include "runtime/model/shape.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "kernels/core/error.h"
#include "runtime/model/spec.h"
#include "tests/support/gguf_builder.h"
#include "tests/support/temp_dir.h"

namespace spillway::testing {
namespace {

namespace fs = std::filesystem;
using enum QuantType;

ModelShape small_shape() {
  ModelShape shape;
  shape.architecture = "llama";
  shape.name = "small";
  shape.n_layers = 9;
  shape.dim = 256;
  shape.n_heads = 4;
  shape.n_kv_heads = 2;
  shape.ff_dim = 512;
  shape.vocab_size = 300;
  shape.context_length = 2048;
  shape.rope_base = 500000.0;
  return shape;
}

void add(GgufBuilder& out, const std::string& name, const std::vector<int64_t>& dims,
         QuantType type) {
  int64_t elements = 1;
  for (const int64_t dim : dims) elements *= dim;
  out.add_tensor(name, dims, type,
                 std::string(static_cast<size_t>(quant_bytes(type, elements)), '\0'));
}

// The same model as a file: `big(layer)` is the type of value and down matrices.
template <typename Big>
GgufBuilder file_of(const ModelShape& shape, QuantType base, QuantType output, const Big& big) {
  GgufBuilder out;
  const auto key = [&](const char* suffix) { return shape.architecture + "." + suffix; };
  const auto number = [](int64_t n) { return static_cast<uint32_t>(n); };
  out.set_string("general.architecture", shape.architecture)
      .set_string("general.name", shape.name)
      .set_u32(key("block_count"), number(shape.n_layers))
      .set_u32(key("embedding_length"), number(shape.dim))
      .set_u32(key("feed_forward_length"), number(shape.ff_dim))
      .set_u32(key("context_length"), number(shape.context_length))
      .set_u32(key("attention.head_count"), number(shape.n_heads))
      .set_u32(key("attention.head_count_kv"), number(shape.n_kv_heads))
      .set_f32(key("rope.freq_base"), static_cast<float>(shape.rope_base))
      .set_f32(key("attention.layer_norm_rms_epsilon"), 1e-5F);
  const int64_t head_dim = shape.dim / shape.n_heads;
  const int64_t kv = shape.n_kv_heads * head_dim;
  add(out, "token_embd.weight", {shape.dim, shape.vocab_size}, shape.tied_output ? output : base);
  for (int64_t i = 0; i < shape.n_layers; ++i) {
    const std::string p = "blk." + std::to_string(i) + ".";
    add(out, p + "attn_norm.weight", {shape.dim}, kF32);
    add(out, p + "attn_q.weight", {shape.dim, shape.dim}, base);
    add(out, p + "attn_k.weight", {shape.dim, kv}, base);
    add(out, p + "attn_v.weight", {shape.dim, kv}, big(i));
    add(out, p + "attn_output.weight", {shape.dim, shape.dim}, base);
    if (shape.qkv_bias) {
      add(out, p + "attn_q.bias", {shape.dim}, kF32);
      add(out, p + "attn_k.bias", {kv}, kF32);
      add(out, p + "attn_v.bias", {kv}, kF32);
    }
    add(out, p + "ffn_norm.weight", {shape.dim}, kF32);
    add(out, p + "ffn_gate.weight", {shape.dim, shape.ff_dim}, base);
    add(out, p + "ffn_up.weight", {shape.dim, shape.ff_dim}, base);
    add(out, p + "ffn_down.weight", {shape.ff_dim, shape.dim}, big(i));
  }
  add(out, "output_norm.weight", {shape.dim}, kF32);
  if (!shape.tied_output) add(out, "output.weight", {shape.dim, shape.vocab_size}, output);
  return out;
}

void expect_same(const MatrixSpec& a, const MatrixSpec& b, const std::string& name) {
  EXPECT_EQ(a.type, b.type) << name;
  EXPECT_EQ(a.rows, b.rows) << name;
  EXPECT_EQ(a.cols, b.cols) << name;
}

// All but the hash and the bytes of the file, of which the tokeniser is a part.
void expect_same(const ModelSpec& a, const ModelSpec& b) {
  EXPECT_EQ(a.architecture, b.architecture);
  EXPECT_EQ(a.name, b.name);
  EXPECT_EQ(a.n_layers, b.n_layers);
  EXPECT_EQ(a.dim, b.dim);
  EXPECT_EQ(a.n_heads, b.n_heads);
  EXPECT_EQ(a.n_kv_heads, b.n_kv_heads);
  EXPECT_EQ(a.head_dim, b.head_dim);
  EXPECT_EQ(a.ff_dim, b.ff_dim);
  EXPECT_EQ(a.vocab_size, b.vocab_size);
  EXPECT_EQ(a.context_length, b.context_length);
  EXPECT_EQ(a.norm_eps, b.norm_eps);
  EXPECT_EQ(a.rope.halves, b.rope.halves);
  EXPECT_EQ(a.rope.n_rot, b.rope.n_rot);
  EXPECT_EQ(a.rope.base, b.rope.base);
  expect_same(a.embedding, b.embedding, "embedding");
  expect_same(a.output, b.output, "output");
  ASSERT_EQ(a.layers.size(), b.layers.size());
  for (size_t i = 0; i < a.layers.size(); ++i) {
    const LayerSpec& x = a.layers[i];
    const LayerSpec& y = b.layers[i];
    const std::string at = " of layer " + std::to_string(i);
    expect_same(x.q, y.q, "q" + at);
    expect_same(x.k, y.k, "k" + at);
    expect_same(x.v, y.v, "v" + at);
    expect_same(x.o, y.o, "o" + at);
    expect_same(x.gate, y.gate, "gate" + at);
    expect_same(x.up, y.up, "up" + at);
    expect_same(x.down, y.down, "down" + at);
    EXPECT_EQ(x.q_bias, y.q_bias);
    EXPECT_EQ(x.v_bias, y.v_bias);
    EXPECT_EQ(x.o_bias, y.o_bias);
    EXPECT_EQ(x.window, y.window);
  }
}

ModelSpec read(const GgufBuilder& builder) {
  const TempDir dir;
  return read_model_spec(Gguf::open(builder.write(dir.file("m.gguf"))));
}

ModelSpec spec_of(const ModelShape& shape, const char* mix) {
  return shape_spec(shape, *find_quant_mix(mix));
}

TEST(Shape, IsWhatTheFileSays) {
  // Of 9 layers an eighth is 1: the first, the last two (from 7), and every third between from 3.
  const auto q4_k_m = [](int64_t i) {
    return i == 0 || i >= 7 || i == 3 || i == 6 ? kQ6_K : kQ4_K;
  };
  expect_same(spec_of(small_shape(), "Q4_K_M"), read(file_of(small_shape(), kQ4_K, kQ6_K, q4_k_m)));
  const auto q8_0 = [](int64_t) { return kQ8_0; };
  expect_same(spec_of(small_shape(), "Q8_0"), read(file_of(small_shape(), kQ8_0, kQ8_0, q8_0)));
  const auto f16 = [](int64_t) { return kF16; };
  expect_same(spec_of(small_shape(), "F16"), read(file_of(small_shape(), kF16, kF16, f16)));
  ModelShape shape = small_shape();
  shape.tied_output = true;
  shape.architecture = "qwen2";
  shape.qkv_bias = true;
  expect_same(spec_of(shape, "Q4_K_M"), read(file_of(shape, kQ4_K, kQ6_K, q4_k_m)));
}

TEST(Shape, HasTheBytesOfTheFile) {
  const auto q8_0 = [](int64_t) { return kQ8_0; };
  const ModelSpec file = read(file_of(small_shape(), kQ8_0, kQ8_0, q8_0));
  const ModelSpec shape = spec_of(small_shape(), "Q8_0");
  EXPECT_NEAR(static_cast<double>(shape.file_bytes), static_cast<double>(file.file_bytes), 4096);
}

// Sizes of the files at huggingface.co/bartowski, in 1e9 bytes and rounded; the tokeniser is up to
// 8 MB of them.
TEST(Shape, ThoseThatComeWithTheProgramHaveThePublishedSizes) {
  struct Published {
    const char* shape;
    const char* mix;
    double gb;
  };
  const Published all[] = {{"llama-8b", "Q4_K_M", 4.92},
                           {"llama-8b", "Q8_0", 8.54},
                           {"llama-70b", "Q4_K_M", 42.52},
                           {"llama-1b", "Q4_K_M", 0.81},
                           {"qwen2.5-32b", "Q4_K_M", 19.85},
                           {"qwen2.5-7b", "Q4_K_M", 4.68},
                           {"mistral-large-123b", "Q4_K_M", 73.22},
                           {"llama-3b", "Q4_K_M", 2.02}};
  const std::string folder = SPILLWAY_SOURCE_DIR "/configs/models/";
  for (const Published& one : all) {
    const ModelShape shape = read_shape_file(folder + one.shape + ".toml");
    const ModelSpec spec = shape_spec(shape, *find_quant_mix(one.mix));
    const double gb = static_cast<double>(spec.file_bytes) * 1e-9;
    EXPECT_GT(gb, one.gb - 0.014) << one.shape;
    EXPECT_LT(gb, one.gb + 0.006) << one.shape;
  }
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    SCOPED_TRACE(entry.path());
    const ModelShape shape = read_shape_file(entry.path().string());
    for (const QuantMix& mix : quant_mixes()) {
      EXPECT_EQ(shape_spec(shape, mix).n_layers, shape.n_layers) << mix.name;
    }
  }
  const ModelShape largest = read_shape_file(folder + "llama-405b.toml");
  EXPECT_EQ(largest.n_layers, 126);
}

std::string refusal(const std::string& from, const std::string& to) {
  const TempDir dir;
  std::string text =
      "architecture = \"llama\"\nname = \"x\"\nlayers = 2\ndim = 64\nheads = 4\nkv_heads = 2\n"
      "ff = 128\nvocab = 100\ncontext = 512\n";
  text.replace(text.find(from), from.size(), to);
  std::ofstream(dir.file("s.toml")) << text;
  try {
    shape_spec(read_shape_file(dir.file("s.toml")), *find_quant_mix("Q8_0"));
    return "it was taken";
  } catch (const Error& error) {
    return error.what();
  }
}

TEST(Shape, WhatNoModelHasIsRefused) {
  const auto expect = [](const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << "\"" << part << "\" in: " << text;
  };
  EXPECT_EQ(refusal("dim = 64", "dim = 128"), "it was taken");
  expect(refusal("llama", "mamba"), "s.toml, line 1");
  expect(refusal("llama", "mamba"), "llama, qwen2");
  expect(refusal("layers = 2\n", ""), "layers is missing");
  expect(refusal("layers", "layer"), "layers is missing");
  expect(refusal("ff = 128", "ff = 128\nffn = 3"), "did you mean ff?");
  expect(refusal("layers = 2", "layers = 100000"), "layers is larger");
  expect(refusal("heads = 4", "heads = 20000000"), "larger than any");
  expect(refusal("heads = 4", "heads = 0"), "below 1");
  expect(refusal("kv_heads = 2", "kv_heads = 3"), "do not divide");
  expect(refusal("heads = 4", "heads = 1000000"), "no model can have this shape");
  expect(refusal("context = 512", "context = 512\nhead_dim = 100000"), "key_length");
}

}  // namespace
}  // namespace spillway::testing

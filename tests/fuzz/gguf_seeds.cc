// Writes the seeds of gguf_fuzz into a folder: small sound files of every kind that the reader
// knows, from which libFuzzer makes broken ones.
//
//   gguf_seeds FOLDER
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "tests/runtime/token/tokenizer_vocabs.h"
#include "tests/support/gguf_builder.h"
#include "tests/support/tiny_model.h"

namespace spillway::fuzz {
namespace {

using testing::GgufArray;
using testing::GgufBuilder;
using testing::TinyModel;
using testing::TinyOptions;

GgufBuilder every_value() {
  return GgufBuilder()
      .alignment(64)
      .set_string("general.architecture", "llama")
      .set_u8("u8", 1)
      .set_i8("i8", -1)
      .set_u16("u16", 2)
      .set_i16("i16", -2)
      .set_u64("u64", 4)
      .set_i64("i64", -4)
      .set_f64("f64", 0.5)
      .set_bool("bool", true)
      .set_array<bool>("bools", {true, false})
      .set_array<double>("doubles", {1, 2.5})
      .set_array("deep", GgufArray::arrays({GgufArray::arrays({GgufArray::strings({"a", ""})}),
                                            GgufArray::of<int32_t>({1, 2, 3})}));
}

GgufBuilder every_type() {
  GgufBuilder builder;
  for (uint32_t number = 0; number < 40; ++number) {
    const auto type = quant_type_from_file(number);
    if (!type) continue;
    const QuantInfo& info = quant_info(*type);
    builder.add_tensor(info.name, {info.block_elements}, *type,
                       std::string(static_cast<size_t>(info.block_bytes), '\1'));
  }
  return builder;
}

// The smallest model that the spec takes, with a vocabulary of as many tokens.
TinyOptions smallest() {
  TinyOptions o;
  o.n_layers = 1;
  o.heads = 2;
  o.kv_heads = 1;
  o.head_dim = 2;
  o.dim = 4;
  o.ff = 4;
  o.vocab = 3;
  return o;
}

GgufBuilder with_words(GgufBuilder builder) {
  return builder.set_string("tokenizer.ggml.model", "llama")
      .set_strings("tokenizer.ggml.tokens", {"<unk>", "\xE2\x96\x81", "<0x41>"})
      .set_array<float>("tokenizer.ggml.scores", {0, -1, -2})
      .set_array<int32_t>("tokenizer.ggml.token_type", {2, 1, 6});
}

GgufBuilder some_pairs(const std::string& pre) {
  return GgufBuilder()
      .set_string("tokenizer.ggml.model", "gpt2")
      .set_string("tokenizer.ggml.pre", pre)
      .set_strings("tokenizer.ggml.tokens",
                   {"a", "b", "ab", "abab", "<|im_end|>", "<tool>", "<|fim_pad|>", ""})
      .set_array<int32_t>("tokenizer.ggml.token_type", {1, 1, 1, 1, 3, 4, 5, 1})
      .set_strings("tokenizer.ggml.merges", {"a b", "ab ab"})
      .set_bool("tokenizer.ggml.add_bos_token", true)
      .set_u32("tokenizer.ggml.bos_token_id", 4)
      .set_u32("tokenizer.ggml.eos_token_id", 4);
}

void write_all(const std::string& folder) {
  const auto name = [&](const std::string& stem) { return folder + "/" + stem + ".gguf"; };
  GgufBuilder().write(name("nothing"));
  every_value().write(name("every_value"));
  every_value().version(2).write(name("version_2"));
  every_type().write(name("every_type"));
  TinyModel(smallest()).write(name("llama"));
  with_words(TinyModel(smallest()).builder()).write(name("llama_words"));
  TinyOptions qwen = smallest();
  qwen.architecture = "qwen2";
  qwen.biases = true;
  qwen.tied = true;
  qwen.rope_scaling = "yarn";
  qwen.rope_original_context = 64;
  TinyModel(qwen).write(name("qwen2_yarn"));
  TinyOptions freqs = smallest();
  freqs.rope_freqs = {1.0F};
  freqs.rope_scaling = "linear";
  freqs.vector_type = QuantType::kF16;
  TinyModel(freqs).write(name("rope_freqs"));
  for (const char* pre : {"default", "llama-bpe", "qwen2", "tekken", "deepseek-llm"}) {
    some_pairs(pre).write(name(std::string("pairs_") + pre));
  }
  testing::spm_vocab(testing::spm_parts()).write(name("spm_bytes"));
}

}  // namespace
}  // namespace spillway::fuzz

int main(int argc, char** argv) {
  try {
    if (argc != 2) throw std::runtime_error("usage: gguf_seeds FOLDER");
    spillway::fuzz::write_all(argv[1]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "gguf_seeds: %s\n", error.what());
    return 1;
  }
  return 0;
}

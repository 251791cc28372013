// mixed_types against the types that llama.cpp gave the same tensors: models of many shapes, from
// tests/golden/quant/make_mixes. Further: names of mixes, choices of the user, what is never
// quantised.
#include "runtime/model/quant_mix.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "kernels/core/error.h"
#include "tests/support/gguf_builder.h"
#include "tests/support/temp_dir.h"

namespace spillway::testing {
namespace {

using Json = nlohmann::ordered_json;
using enum QuantType;

std::string name_in(const std::string& kind, int64_t layer) {
  const size_t star = kind.find('*');
  return star == std::string::npos
             ? kind
             : kind.substr(0, star) + std::to_string(layer) + kind.substr(star + 1);
}

void add_tensor(GgufBuilder& builder, const std::string& name, const std::vector<int64_t>& dims) {
  int64_t elements = 1;
  for (const int64_t dim : dims) elements *= dim;
  const QuantType type = dims.size() == 1 ? kF32 : kF16;
  builder.add_tensor(name, dims, type,
                     std::string(static_cast<size_t>(quant_bytes(type, elements)), '\0'));
}

GgufBuilder metadata_of(const std::string& architecture, int layers, int heads, int kv_heads,
                        int experts) {
  GgufBuilder builder;
  builder.set_string("general.architecture", architecture);
  const auto set = [&](const char* key, int value) {
    if (value > 0) builder.set_u32(architecture + key, static_cast<uint32_t>(value));
  };
  set(".block_count", layers);
  set(".attention.head_count", heads);
  set(".attention.head_count_kv", kv_heads);
  set(".expert_count", experts);
  return builder;
}

Gguf model_of(const Json& shape, const TempDir& dir) {
  GgufBuilder builder = metadata_of(shape.at("architecture"), shape.at("layers"), shape.at("heads"),
                                    shape.at("kv_heads"), shape.at("experts"));
  for (const auto& [kind, dims] : shape.at("kinds").items()) {
    const int64_t layers = kind.find('*') == std::string::npos ? 1 : shape.at("layers").get<int>();
    for (int64_t layer = 0; layer < layers; ++layer) {
      add_tensor(builder, name_in(kind, layer), dims.get<std::vector<int64_t>>());
    }
  }
  return Gguf::open(builder.write(dir.file("shape.gguf")));
}

// "Q6_K*2 Q4_K*1" → Q6_K, Q6_K, Q4_K.
std::vector<std::string> unrolled(const std::string& runs) {
  std::vector<std::string> types;
  std::istringstream words(runs);
  for (std::string word; words >> word;) {
    const size_t star = word.find('*');
    types.insert(types.end(), static_cast<size_t>(std::stoi(word.substr(star + 1))),
                 word.substr(0, star));
  }
  return types;
}

std::map<std::string, std::string> types_by_name(const Gguf& gguf, const QuantMix& mix,
                                                 const QuantMixOptions& options = {}) {
  const std::vector<QuantType> types = mixed_types(gguf, mix, options);
  std::map<std::string, std::string> out;
  for (size_t i = 0; i < types.size(); ++i) {
    out[gguf.tensors()[i].name] = quant_info(types[i]).name;
  }
  return out;
}

TEST(QuantMixTest, ChoosesWhatLlamaCppChooses) {
  std::ifstream file(SPILLWAY_SOURCE_DIR "/tests/golden/quant/mixes.json");
  ASSERT_TRUE(file.good());
  const TempDir dir;
  int compared = 0;
  for (const Json& shape : Json::parse(file)) {
    const Gguf gguf = model_of(shape, dir);
    for (const auto& [name, golden] : shape.at("mixes").items()) {
      SCOPED_TRACE(shape.at("title").get<std::string>() + ", " + name);
      const QuantMix* mix = find_quant_mix(name);
      ASSERT_NE(mix, nullptr);
      EXPECT_EQ(mix->file_type, golden.at("file_type").get<uint32_t>());
      std::map<std::string, std::string> expected;
      for (const auto& [kind, runs] : golden.items()) {
        if (kind == "file_type") continue;
        int64_t layer = 0;
        for (const std::string& type : unrolled(runs)) expected[name_in(kind, layer++)] = type;
      }
      EXPECT_EQ(types_by_name(gguf, *mix), expected);
      ++compared;
    }
  }
  EXPECT_GE(compared, 150);
}

TEST(QuantMixTest, FindsMixesByNameInAnyCase) {
  EXPECT_STREQ(find_quant_mix("q4_k_m")->name, "Q4_K_M");
  EXPECT_STREQ(find_quant_mix("Q4_K")->name, "Q4_K_M");
  EXPECT_STREQ(find_quant_mix("Q3_K")->name, "Q3_K_M");
  EXPECT_STREQ(find_quant_mix("q5_k")->name, "Q5_K_M");
  EXPECT_STREQ(find_quant_mix("Q6_K")->name, "Q6_K");
  EXPECT_STREQ(find_quant_mix("mxfp4")->name, "MXFP4");
  for (const char* name : {"", "Q4", "Q4_K_L", "Q4_K_M ", "F64", "IQ2_XXS"}) {
    EXPECT_EQ(find_quant_mix(name), nullptr) << name;
  }
}

class QuantMixChoiceTest : public ::testing::Test {
 protected:
  Gguf model(bool tied) {
    GgufBuilder builder = metadata_of("llama", 2, 8, 8, 0);
    add_tensor(builder, "token_embd.weight", {256, 2});
    add_tensor(builder, "blk.0.attn_v.weight", {256, 2});
    add_tensor(builder, "blk.0.attn_v.bias", {256});
    add_tensor(builder, "blk.0.attn_norm.weight", {256});
    add_tensor(builder, "blk.0.ffn_gate_inp.weight", {256, 2});
    add_tensor(builder, "blk.1.attn_v.weight", {256, 2});
    add_tensor(builder, "blk.1.single.weight", {256, 1});
    add_tensor(builder, "rope_freqs.weight", {32});
    if (!tied) add_tensor(builder, "output.weight", {256, 2});
    return Gguf::open(builder.write(dir_.file("choice.gguf")));
  }
  TempDir dir_;
};

TEST_F(QuantMixChoiceTest, PureTakesOneTypeAndKeepsWhatIsNoMatrix) {
  const auto types = types_by_name(model(false), *find_quant_mix("Q4_K_M"), {true, {}, {}});
  EXPECT_EQ(types.at("token_embd.weight"), "Q4_K");
  EXPECT_EQ(types.at("output.weight"), "Q4_K");
  EXPECT_EQ(types.at("blk.0.attn_v.weight"), "Q4_K");
  for (const char* kept : {"blk.0.attn_v.bias", "blk.0.attn_norm.weight", "rope_freqs.weight"}) {
    EXPECT_EQ(types.at(kept), "F32") << kept;
  }
  EXPECT_EQ(types.at("blk.0.ffn_gate_inp.weight"), "F16");
  EXPECT_EQ(types.at("blk.1.single.weight"), "F16");
}

TEST_F(QuantMixChoiceTest, TheUsersTypesWin) {
  const QuantMixOptions both{false, kQ8_0, kQ5_K};
  const auto apart = types_by_name(model(false), *find_quant_mix("Q4_K_M"), both);
  EXPECT_EQ(apart.at("output.weight"), "Q8_0");
  EXPECT_EQ(apart.at("token_embd.weight"), "Q5_K");
  // A tied matrix is both; the name that it has decides first.
  EXPECT_EQ(types_by_name(model(true), *find_quant_mix("Q4_K_M"), both).at("token_embd.weight"),
            "Q5_K");
  const QuantMixOptions output{false, kF16, {}};
  EXPECT_EQ(types_by_name(model(true), *find_quant_mix("Q4_K_M"), output).at("token_embd.weight"),
            "F16");
}

TEST_F(QuantMixChoiceTest, Mxfp4KeepsEmbeddingsAndOutputIn8Bits) {
  const auto types = types_by_name(model(false), *find_quant_mix("MXFP4"));
  EXPECT_EQ(types.at("token_embd.weight"), "Q8_0");
  EXPECT_EQ(types.at("output.weight"), "Q8_0");
  EXPECT_EQ(types.at("blk.1.attn_v.weight"), "MXFP4");
}

// Counts are multiplied with each other; a file may claim any.
TEST(QuantMixTest, CountsThatCannotBeAreErrorsThatNameTheKey) {
  const TempDir dir;
  for (const char* key : {"llama.block_count", "llama.attention.head_count"}) {
    for (const int64_t count : {int64_t{1} << 60, int64_t{1} << 62, int64_t{-1}, INT64_MIN}) {
      GgufBuilder builder;
      builder.set_string("general.architecture", "llama").set_i64(key, count);
      add_tensor(builder, "blk.0.ffn_down.weight", {256, 2});
      const Gguf gguf = Gguf::open(builder.write(dir.file("counts.gguf")));
      try {
        mixed_types(gguf, *find_quant_mix("Q4_K_M"), {});
        ADD_FAILURE() << key << " of " << count << " is taken";
      } catch (const Error& error) {
        const std::string said = error.what();
        EXPECT_NE(said.find(key), std::string::npos) << said;
        EXPECT_NE(said.find(std::to_string(count)), std::string::npos) << said;
        EXPECT_NE(said.find("counts.gguf"), std::string::npos) << said;
      }
    }
  }
}

}  // namespace
}  // namespace spillway::testing

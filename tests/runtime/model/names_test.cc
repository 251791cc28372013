// The table of architectures: whole, without doubles, and every cut axis as the arithmetic needs.
#include "runtime/model/names.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <utility>

namespace spillway::testing {
namespace {

// Fields of a Llama layer; those after them are for some architectures only.
constexpr int kLlamaFields = static_cast<int>(Field::kDownBias) + 1;

TEST(NamesTest, FindsWhatItHas) {
  ASSERT_NE(find_architecture("llama"), nullptr);
  ASSERT_NE(find_architecture("qwen2"), nullptr);
  EXPECT_STREQ(find_architecture("llama")->name, "llama");
  EXPECT_FALSE(find_architecture("llama")->rope_halves);
  EXPECT_TRUE(find_architecture("qwen2")->rope_halves);
  for (const char* unknown : {"", "Llama", "llama ", "llama2", "gpt2", "qwen"}) {
    EXPECT_EQ(find_architecture(unknown), nullptr) << unknown;
  }
  EXPECT_EQ(supported_architectures(), "llama, qwen2, qwen3, gemma3");
}

TEST(NamesTest, EveryFieldHasAtMostOneLine) {
  for (const auto& [name, n_more] :
       {std::pair{"llama", 0}, {"qwen2", 0}, {"qwen3", 2}, {"gemma3", 4}}) {
    SCOPED_TRACE(name);
    const int n_fields = kLlamaFields + n_more;
    const Architecture& architecture = *find_architecture(name);
    std::set<std::string> names;
    std::set<Field> fields;
    for (const TensorName& tensor : architecture.tensors) {
      names.insert(tensor.name);
      fields.insert(tensor.field);
    }
    EXPECT_EQ(names.size(), static_cast<size_t>(n_fields));
    EXPECT_EQ(fields.size(), static_cast<size_t>(n_fields));
    EXPECT_EQ(architecture.tensors.size(), static_cast<size_t>(n_fields));
    for (int i = 0; i < n_fields; ++i) {
      const auto field = static_cast<Field>(i);
      ASSERT_NE(tensor_name(architecture, field), nullptr);
      EXPECT_EQ(tensor_name(architecture, field)->field, field);
    }
  }
  EXPECT_EQ(tensor_name(*find_architecture("llama"), Field::kQNorm), nullptr);
  EXPECT_EQ(tensor_name(*find_architecture("qwen3"), Field::kAttentionPostNorm), nullptr);
}

TEST(NamesTest, KnowsTheTensorsOfItsLayers) {
  const Architecture& llama = *find_architecture("llama");
  const Architecture& gemma = *find_architecture("gemma3");
  for (const char* name : {"token_embd.weight", "output.weight", "blk.0.attn_q.weight",
                           "blk.11.ffn_down.bias", "rope_freqs.weight"}) {
    EXPECT_TRUE(knows_tensor(llama, 12, name)) << name;
  }
  for (const char* name :
       {"", "blk.", "blk.*.attn_q.weight", "blk.12.attn_q.weight", "blk.-1.attn_q.weight",
        "blk.+1.attn_q.weight", "blk.01.attn_q.weight", "blk.1attn_q.weight", "blk.1.attn_q",
        "blk.99999999999999999999.attn_q.weight", "blk.0.ffn_gate_inp.weight",
        "blk.0.attn_q_norm.weight", "output.bias", "token_embd.weight.weight"}) {
    EXPECT_FALSE(knows_tensor(llama, 12, name)) << name;
  }
  EXPECT_TRUE(knows_tensor(gemma, 12, "blk.3.attn_q_norm.weight"));
  EXPECT_TRUE(knows_tensor(gemma, 12, "blk.3.post_ffw_norm.weight"));
  EXPECT_FALSE(knows_tensor(gemma, 12, "dense_2.weight"));
}

TEST(NamesTest, LayersAreCounted) {
  const Architecture& llama = *find_architecture("llama");
  EXPECT_EQ(layer_tensor_name(*tensor_name(llama, Field::kQ), 0), "blk.0.attn_q.weight");
  EXPECT_EQ(layer_tensor_name(*tensor_name(llama, Field::kDown), 127), "blk.127.ffn_down.weight");
  EXPECT_EQ(layer_tensor_name(*tensor_name(llama, Field::kOutput), 3), "output.weight");
}

TEST(NamesTest, AxesFollowTheArithmetic) {
  const Architecture& llama = *find_architecture("llama");
  const auto axis = [&](Field field) { return tensor_name(llama, field)->axis; };
  // A bias is cut as its matrix's rows; after a sum over ranks it is added whole by each.
  for (const auto& [matrix, bias] : {std::pair{Field::kQ, Field::kQBias},
                                     {Field::kK, Field::kKBias},
                                     {Field::kV, Field::kVBias},
                                     {Field::kGate, Field::kGateBias},
                                     {Field::kUp, Field::kUpBias}}) {
    EXPECT_EQ(axis(matrix), axis(bias));
  }
  EXPECT_EQ(axis(Field::kQ), SplitAxis::kHeadRows);
  EXPECT_EQ(axis(Field::kK), SplitAxis::kKvHeadRows);
  EXPECT_EQ(axis(Field::kO), SplitAxis::kHeadCols);
  EXPECT_EQ(axis(Field::kDown), SplitAxis::kFfCols);
  EXPECT_EQ(axis(Field::kOBias), SplitAxis::kWhole);
  EXPECT_EQ(axis(Field::kDownBias), SplitAxis::kWhole);
  EXPECT_EQ(axis(Field::kEmbedding), SplitAxis::kVocabRows);
  EXPECT_EQ(axis(Field::kOutput), SplitAxis::kVocabRows);
  EXPECT_FALSE(tensor_name(llama, Field::kOutput)->required);
  EXPECT_TRUE(tensor_name(llama, Field::kV)->required);
}

}  // namespace
}  // namespace spillway::testing

// The table of architectures: whole, without doubles, and every cut axis as the arithmetic needs.
#include "runtime/model/names.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace spillway::testing {
namespace {

constexpr int kFields = static_cast<int>(Field::kDownBias) + 1;

TEST(NamesTest, FindsWhatItHas) {
  ASSERT_NE(find_architecture("llama"), nullptr);
  ASSERT_NE(find_architecture("qwen2"), nullptr);
  EXPECT_STREQ(find_architecture("llama")->name, "llama");
  EXPECT_FALSE(find_architecture("llama")->rope_halves);
  EXPECT_TRUE(find_architecture("qwen2")->rope_halves);
  for (const char* unknown : {"", "Llama", "llama ", "llama2", "gpt2", "qwen"}) {
    EXPECT_EQ(find_architecture(unknown), nullptr) << unknown;
  }
  EXPECT_EQ(supported_architectures(), "llama, qwen2");
}

TEST(NamesTest, EveryFieldHasOneLineInEveryArchitecture) {
  for (const char* name : {"llama", "qwen2"}) {
    const Architecture& architecture = *find_architecture(name);
    std::set<std::string> names;
    std::set<Field> fields;
    for (const TensorName& tensor : architecture.tensors) {
      names.insert(tensor.name);
      fields.insert(tensor.field);
    }
    EXPECT_EQ(names.size(), static_cast<size_t>(kFields));
    EXPECT_EQ(fields.size(), static_cast<size_t>(kFields));
    EXPECT_EQ(architecture.tensors.size(), static_cast<size_t>(kFields));
    for (int i = 0; i < kFields; ++i) {
      const auto field = static_cast<Field>(i);
      EXPECT_EQ(tensor_name(architecture, field).field, field);
    }
  }
}

TEST(NamesTest, LayersAreCounted) {
  const Architecture& llama = *find_architecture("llama");
  EXPECT_EQ(layer_tensor_name(tensor_name(llama, Field::kQ), 0), "blk.0.attn_q.weight");
  EXPECT_EQ(layer_tensor_name(tensor_name(llama, Field::kDown), 127), "blk.127.ffn_down.weight");
  EXPECT_EQ(layer_tensor_name(tensor_name(llama, Field::kOutput), 3), "output.weight");
}

TEST(NamesTest, AxesFollowTheArithmetic) {
  const Architecture& llama = *find_architecture("llama");
  const auto axis = [&](Field field) { return tensor_name(llama, field).axis; };
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
  EXPECT_FALSE(tensor_name(llama, Field::kOutput).required);
  EXPECT_TRUE(tensor_name(llama, Field::kV).required);
}

}  // namespace
}  // namespace spillway::testing

// find_not_finite: the first weight that is no number, in matrices and vectors of every type that
// the tiny model can be written in.
#include "runtime/model/not_finite.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"

namespace spillway::testing {
namespace {

using std::chrono_literals::operator""s;

std::optional<NotFiniteWeight> search(const TinyOptions& options) {
  const TempDir dir;
  return find_not_finite(Gguf::open(TinyModel(options).write(dir.file("m.gguf"))), 60s);
}

TEST(NotFiniteTest, NothingInASoundModel) {
  for (const QuantType type : {QuantType::kF32, QuantType::kF16, QuantType::kQ8_0}) {
    TinyOptions options;
    options.type = type;
    options.biases = true;
    EXPECT_FALSE(search(options));
  }
}

TEST(NotFiniteTest, NamesTensorRowAndPlace) {
  TinyOptions options;
  options.poke["blk.1.ffn_down.weight"][96 * 5 + 17] = std::numeric_limits<float>::infinity();
  options.poke["blk.1.ffn_norm.weight"][3] = std::nanf("");  // before it in the file
  const TempDir dir;
  const Gguf gguf = Gguf::open(TinyModel(options).write(dir.file("m.gguf")));
  const auto norm = find_not_finite(gguf, 60s);
  ASSERT_TRUE(norm);
  EXPECT_EQ(norm->tensor, "blk.1.ffn_norm.weight");
  EXPECT_EQ(norm->row, 0);
  EXPECT_TRUE(std::isnan(norm->value));
  options.poke.erase("blk.1.ffn_norm.weight");
  const auto down = search(options);
  ASSERT_TRUE(down);
  EXPECT_EQ(down->tensor, "blk.1.ffn_down.weight");
  EXPECT_EQ(down->row, 5);
  EXPECT_TRUE(std::isinf(down->value));
  EXPECT_EQ(down->offset, gguf.tensor("blk.1.ffn_down.weight")->offset + 5 * 96 * 4);
  EXPECT_EQ(down->path.substr(down->path.size() - 6), "m.gguf");
}

TEST(NotFiniteTest, GivesUpWhenItTakesTooLong) {
  TinyOptions options;
  options.poke["output_norm.weight"][0] = std::nanf("");  // after the embedding
  const TempDir dir;
  const Gguf gguf = Gguf::open(TinyModel(options).write(dir.file("m.gguf")));
  EXPECT_FALSE(find_not_finite(gguf, std::chrono::milliseconds(-1)));
  EXPECT_TRUE(find_not_finite(gguf, 60s));
}

}  // namespace
}  // namespace spillway::testing

// Tests of runtime/token/detokenizer.h: only whole characters come out, and all of them.
#include "runtime/token/detokenizer.h"

#include <gtest/gtest.h>

#include <random>

#include "runtime/token/tokenizer_utf8.h"
#include "tests/runtime/token/tokenizer_vocabs.h"

namespace spillway {
namespace {

using testing::gpt2_parts;
using testing::gpt2_vocab;
using testing::make_tokenizer;
using testing::spm_parts;
using testing::spm_vocab;

constexpr const char* kReplacement = "\uFFFD";

TEST(Detokenizer, WaitsForWholeCharacters) {
  Tokenizer tokenizer = make_tokenizer(gpt2_vocab(gpt2_parts()));
  Detokenizer detokenizer(tokenizer);
  EXPECT_EQ(detokenizer.push(259), "hello");
  EXPECT_EQ(detokenizer.push(0xF0), "");
  EXPECT_EQ(detokenizer.push(0x9F), "");
  EXPECT_EQ(detokenizer.push(0x98), "");
  EXPECT_EQ(detokenizer.push(0x80), "😀");
  EXPECT_EQ(detokenizer.finish(), "");
}

TEST(Detokenizer, ReplacesWhatNeverBecomesACharacter) {
  Tokenizer tokenizer = make_tokenizer(gpt2_vocab(gpt2_parts()));
  Detokenizer detokenizer(tokenizer);
  EXPECT_EQ(detokenizer.push(0xFF), kReplacement);
  EXPECT_EQ(detokenizer.push(0xE2), "");
  EXPECT_EQ(detokenizer.push(259), std::string(kReplacement) + "hello");
  EXPECT_EQ(detokenizer.push(0xE2), "");
  EXPECT_EQ(detokenizer.push(0x82), "");
  EXPECT_EQ(detokenizer.finish(), kReplacement);
  EXPECT_EQ(detokenizer.finish(), "");
}

TEST(Detokenizer, LeavesSpecialTokensOut) {
  Tokenizer tokenizer = make_tokenizer(gpt2_vocab(gpt2_parts()));
  Detokenizer detokenizer(tokenizer);
  EXPECT_EQ(detokenizer.push(265), "");
  EXPECT_EQ(detokenizer.push(267), "<tool>");  // user-defined ones are text
}

TEST(Detokenizer, DropsTheBlankOfTheFirstTokenOnly) {
  Tokenizer tokenizer = make_tokenizer(spm_vocab(spm_parts()));
  Detokenizer start(tokenizer, true);
  EXPECT_EQ(start.push(1), "");  // BOS does not count
  EXPECT_EQ(start.push(271), "hello");
  EXPECT_EQ(start.push(271), " hello");
  Detokenizer middle(tokenizer);
  EXPECT_EQ(middle.push(271), " hello");
}

TEST(Detokenizer, RandomBytesGiveValidText) {
  Tokenizer tokenizer = make_tokenizer(gpt2_vocab(gpt2_parts()));
  std::mt19937 random(5);
  for (int round = 0; round < 500; ++round) {
    Detokenizer detokenizer(tokenizer);
    std::string text;
    for (int i = 0; i < 40; ++i) {
      std::string piece = detokenizer.push(static_cast<int32_t>(random() % 256));
      EXPECT_EQ(utf8_valid_prefix(piece), piece.size());
      text += piece;
    }
    text += detokenizer.finish();
    EXPECT_EQ(utf8_valid_prefix(text), text.size());
  }
}

}  // namespace
}  // namespace spillway

// Tests of runtime/token/pretokenize.h: words by hand for each kind, and that nothing is lost.
#include "runtime/token/pretokenize.h"

#include <gtest/gtest.h>

#include <iterator>
#include <random>

#include "kernels/core/error.h"
#include "runtime/token/tokenizer_utf8.h"
#include "tests/support/cpu_seconds.h"

namespace spillway {
namespace {

using Words = std::vector<std::string_view>;

Words split(std::string_view kind, std::string_view text) {
  Words words;
  Pretokenizer::make(kind, "test").split(text, words);
  return words;
}

TEST(Pretokenize, Gpt2) {
  EXPECT_EQ(split("gpt-2", "Hello world's  12 a!?\n\n b"),
            (Words{"Hello", " world", "'s", " ", " 12", " a", "!?", "\n\n", " b"}));
  EXPECT_EQ(split("gpt-2", "x  "), (Words{"x", "  "}));
  EXPECT_EQ(split("gpt-2", "I'LL"), (Words{"I", "'", "LL"}));
  EXPECT_EQ(split("gpt-2", ""), Words{});
}

TEST(Pretokenize, SmollmTakesDigitsOneByOne) {
  EXPECT_EQ(split("smollm", "a12 3½"), (Words{"a", "1", "2", " ", "3", "½"}));
  EXPECT_EQ(split("starcoder", "x1"), (Words{"x", "1"}));
  EXPECT_EQ(split("refact", "x1"), (Words{"x", "1"}));
  EXPECT_EQ(split("command-r", "x1"), (Words{"x", "1"}));
}

TEST(Pretokenize, Llama3) {
  EXPECT_EQ(split("llama-bpe", "I'LL pay $12345 \n\n now."),
            (Words{"I", "'LL", " pay", " $", "123", "45", " \n\n", " now", "."}));
  EXPECT_EQ(split("llama3", "(foo)!\nbar"), (Words{"(foo", ")!\n", "bar"}));
}

TEST(Pretokenize, Qwen2) {
  EXPECT_EQ(split("qwen2", "a12\tb"), (Words{"a", "1", "2", "\tb"}));
  EXPECT_EQ(split("stablelm2", "12"), (Words{"1", "2"}));
}

TEST(Pretokenize, FalconAndDefault) {
  EXPECT_EQ(split("falcon", "a1234567`b"), (Words{"a", "123", "456", "7", "`", "b"}));
  EXPECT_EQ(split("", "12345+x"), (Words{"123", "45", "+", "x"}));
  EXPECT_EQ(split("default", " 12"), (Words{" ", "12"}));
}

TEST(Pretokenize, Deepseek) {
  EXPECT_EQ(split("deepseek-llm", "Hi, 12345你好\r\n"),
            (Words{"Hi", ",", " ", "12345", "你好", "\r", "\n"}));
  EXPECT_EQ(split("deepseek-llm", "aª"), (Words{"a", "ª"}));  // ª has no case
  EXPECT_EQ(split("deepseek-llm", "😀  "), (Words{"😀", "  "}));
  EXPECT_EQ(split("deepseek-coder", "int x=12;"), (Words{"int", " x", "=", "1", "2", ";"}));
  EXPECT_EQ(split("deepseek-v3", "x1234 日本"), (Words{"x", "123", "4", " ", "日本"}));
}

// Expected words of the next three: llama.cpp's own, by its ids over a byte-level vocabulary.
TEST(Pretokenize, ThreesFromTheRight) {
  EXPECT_EQ(split("afmoe", "x1234567y"), (Words{"x", "1", "234", "567", "y"}));
  EXPECT_EQ(split("afmoe", "  12"), (Words{" ", " ", "12"}));  // the blanks see the number
  EXPECT_EQ(split("tiny_aya", "a123456"), (Words{"a", "123", "456"}));
  EXPECT_EQ(split("superbpe", "a b 1234567 c"), (Words{"a b ", "1", "234", "567", " c"}));
  EXPECT_EQ(split("superbpe", "123456"), (Words{"123", "456"}));
  EXPECT_EQ(split("superbpe", "２345"), (Words{"２", "345"}));
}

TEST(Pretokenize, MarksAndScripts) {
  EXPECT_EQ(split("tiny_aya", "e\u0301a's"), (Words{"e\u0301a's"}));
  EXPECT_EQ(split("granite-embed-multi-97m", "aBe\u0301C"), (Words{"a", "Be\u0301", "C"}));
  EXPECT_EQ(split("kimi-k2", "中文abc中's"), (Words{"中文", "abc", "中", "'s"}));
  EXPECT_EQ(split("youtu", "한글，中文 a"), (Words{"한글", "，", "中文", " a"}));
  EXPECT_EQ(split("afmoe", "เ中a"), (Words{"เ中", "a"}));
}

TEST(Pretokenize, OwnWhiteSpace) {
  EXPECT_EQ(split("jais-2", "a" + std::string(7, ' ') + "b"), (Words{"a", "    ", "  ", " b"}));
  EXPECT_EQ(split("exaone-moe", "two words here, x"), (Words{"two words here", ",", " x"}));
  EXPECT_EQ(split("chameleon", "a     b\t1"), (Words{"a", "    ", " b", "\t", "1"}));
  EXPECT_EQ(split("laguna", "a \n\n b"), (Words{"a", " ", "\n\n", " b"}));
}

TEST(Pretokenize, CapitalsBeginWords) {
  EXPECT_EQ(split("tekken", "HelloWorld JSONText 12"),
            (Words{"Hello", "World", " JSONText", " ", "1", "2"}));
  EXPECT_EQ(split("gpt-4o", "don't CAN'T 1234 a/b//\n"),
            (Words{"don't", " CAN'T", " ", "123", "4", " a", "/b", "//\n"}));
}

TEST(Pretokenize, WhiteSpaceIsUnicodes) {
  EXPECT_EQ(split("gpt-2", "a\u3000\u3000b"), (Words{"a", "\u3000", "\u3000", "b"}));
  EXPECT_EQ(split("gpt-2", "a\u180Eb"), (Words{"a", "\u180E", "b"}));
  EXPECT_EQ(split("gpt-2", "\u180E!"), (Words{"\u180E!"}));  // no white space since Unicode 6.3
  EXPECT_EQ(split("gpt-2", "\u2028!"), (Words{"\u2028", "!"}));
  EXPECT_EQ(spell_out_white_space("x").size(), 1u);
  EXPECT_EQ(spell_out_white_space("\\S").substr(0, 2), "[^");
  EXPECT_EQ(spell_out_white_space("[^\\s]"), "[^" + spell_out_white_space("\\s").substr(1));
}

TEST(Pretokenize, BytesThatAreNotUtf8AreWordsOfTheirOwn) {
  EXPECT_EQ(split("gpt-2", "ab\xFF\xC3x\xED\xA0\x80"),
            (Words{"ab", "\xFF", "\xC3", "x", "\xED", "\xA0", "\x80"}));
  EXPECT_EQ(split("gpt-2", "a\xE2\x82"), (Words{"a", "\xE2\x82"}));
}

// Random bytes and random characters through every name of the table.
TEST(Pretokenize, LosesNothing) {
  std::mt19937 random(3);
  const std::string_view samples[] = {"a", "Z",      " ",      "\n", "\r",   "7",    "'s",
                                      "é", "你",     "\u3000", "😀",  "\xFF", "\xE2", "!",
                                      "Ж", "\u0301", "ǅ",      "½",  "_"};
  for (const PretokenizerKind& kind : pretokenizer_kinds()) {
    Pretokenizer pretokenizer =
        Pretokenizer::make(kind.names.substr(0, kind.names.find(' ')), "test");
    for (int round = 0; round < 200; ++round) {
      std::string text;
      for (int i = 0; i < 30; ++i) text += samples[random() % std::size(samples)];
      Words words;
      pretokenizer.split(text, words);
      std::string joined;
      for (std::string_view word : words) {
        EXPECT_FALSE(word.empty());
        joined += word;
      }
      ASSERT_EQ(joined, text) << kind.names;
    }
  }
}

TEST(Pretokenize, LongRunsAreNotQuadratic) {
  const double start = testing::cpu_seconds();
  for (const PretokenizerKind& kind : pretokenizer_kinds()) {
    Pretokenizer pretokenizer =
        Pretokenizer::make(kind.names.substr(0, kind.names.find(' ')), "test");
    for (std::string_view unit : {" ", "a", "A", "7", "\n", "!", "é", "\xFF"}) {
      std::string text;
      while (text.size() < 200000) text += unit;
      text += "😀";
      Words words;
      pretokenizer.split(text, words);
      EXPECT_FALSE(words.empty());
    }
  }
  EXPECT_LT(testing::cpu_seconds() - start, 60);  // 1 s without sanitizers
}

TEST(Pretokenize, UnknownNameListsTheKnown) {
  try {
    Pretokenizer::make("nosuch", "file.gguf");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(error.message().find("'nosuch'"), std::string::npos);
    EXPECT_EQ(error.where(), "file.gguf");
    for (const char* name :
         {"default", "llama-bpe", "llama3", "qwen2", "gpt-2", "smollm", "falcon", "deepseek-llm",
          "deepseek-coder", "starcoder", "refact", "mpt", "command-r", "tekken", "gpt-4o"}) {
      EXPECT_NE(error.message().find(name), std::string::npos) << name;
      EXPECT_NO_THROW(Pretokenizer::make(name, "file.gguf")) << name;
    }
  }
  EXPECT_THROW(Pretokenizer::make("gpt", "f"), Error);  // part of a name
  EXPECT_THROW(Pretokenizer::make("gpt-2 phi-2", "f"), Error);
}

TEST(Utf8, FrontOfAText) {
  auto is = [](std::string_view text, Utf8Front::Kind kind, int bytes) {
    Utf8Front front = utf8_front(text);
    return front.kind == kind && front.bytes == bytes;
  };
  EXPECT_TRUE(is("a", Utf8Front::kWhole, 1));
  EXPECT_TRUE(is("é", Utf8Front::kWhole, 2));
  EXPECT_TRUE(is("😀x", Utf8Front::kWhole, 4));
  EXPECT_TRUE(is("\xF0\x9F\x98", Utf8Front::kUnfinished, 3));
  EXPECT_TRUE(is("\xE2", Utf8Front::kUnfinished, 1));
  EXPECT_TRUE(is("\xC0\x80", Utf8Front::kInvalid, 1));          // overlong
  EXPECT_TRUE(is("\xE0\x80\x80", Utf8Front::kInvalid, 1));      // overlong
  EXPECT_TRUE(is("\xED\xA0\x80", Utf8Front::kInvalid, 1));      // surrogate
  EXPECT_TRUE(is("\xF4\x90\x80\x80", Utf8Front::kInvalid, 1));  // above U+10FFFF
  EXPECT_TRUE(is("\xF0\x9Fx", Utf8Front::kInvalid, 2));
  EXPECT_TRUE(is("\x80", Utf8Front::kInvalid, 1));
  EXPECT_EQ(utf8_valid_prefix("aé\xFFx"), 3u);
}

}  // namespace
}  // namespace spillway

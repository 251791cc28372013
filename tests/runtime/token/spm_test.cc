// Tests of runtime/token/spm.h through Tokenizer: score order, blanks, byte fallback, long texts.
#include "runtime/token/spm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "tests/runtime/token/tokenizer_vocabs.h"
#include "tests/support/cpu_seconds.h"

namespace spillway {
namespace {

using Ids = std::vector<int32_t>;
using testing::make_tokenizer;
using testing::spm_parts;
using testing::spm_vocab;
using testing::VocabParts;

constexpr int kByte = 3;  // id of <0x00>

Ids encode(const Tokenizer& tokenizer, std::string_view text) {
  return tokenizer.encode(text, {.add_special = false});
}

TEST(Spm, MergesByScore) {
  Tokenizer tokenizer = make_tokenizer(spm_vocab(spm_parts()));
  EXPECT_EQ(encode(tokenizer, "hello"), (Ids{271}));
  EXPECT_EQ(encode(tokenizer, "hell"), (Ids{259, 269}));
  EXPECT_EQ(encode(tokenizer, "aab"), (Ids{259, 260, 273}));  // ab before aa
  EXPECT_EQ(encode(tokenizer, "lll"), (Ids{259, 268, 264}));  // of equal score the leftmost
  EXPECT_EQ(encode(tokenizer, "hello whello"), (Ids{271, 274, 270}));
  EXPECT_EQ(encode(tokenizer, ""), Ids{});
}

TEST(Spm, SpellsInBytes) {
  Tokenizer tokenizer = make_tokenizer(spm_vocab(spm_parts()));
  EXPECT_EQ(encode(tokenizer, "é"), (Ids{259, kByte + 0xC3, kByte + 0xA9}));
  EXPECT_EQ(encode(tokenizer, "a\n"), (Ids{259, 260, kByte + '\n'}));
  EXPECT_EQ(encode(tokenizer, "\xFF"), (Ids{259, kByte + 0xFF}));
  EXPECT_EQ(encode(tokenizer, "\xE2\x96"), (Ids{259, kByte + 0xE2, kByte + 0x96}));
  EXPECT_EQ(tokenizer.decode(encode(tokenizer, "é\xFF x")), "é\xFF x");
}

TEST(Spm, WithoutByteTokensTheUnknownStandsForACharacter) {
  VocabParts parts;
  parts.add("<unk>", 2);
  parts.add("<s>", 3);
  parts.add("</s>", 3);
  parts.add("a", 1, -1);
  Tokenizer tokenizer = make_tokenizer(spm_vocab(parts));
  EXPECT_EQ(encode(tokenizer, "aéa"), (Ids{0, 3, 0, 3}));  // the blank is unknown, too
}

TEST(Spm, BlankBeforeTextAsTheFileSays) {
  VocabParts parts = spm_parts();
  Tokenizer with = make_tokenizer(spm_vocab(parts));
  EXPECT_EQ(encode(with, "hello<sep>hello"), (Ids{271, 275, 271}));
  EXPECT_EQ(encode(with, " hello"), (Ids{259, 271}));
  Tokenizer without =
      make_tokenizer(spm_vocab(parts).set_bool("tokenizer.ggml.add_space_prefix", false));
  EXPECT_EQ(encode(without, "hello<sep> hello"), (Ids{270, 275, 271}));
  EXPECT_EQ(without.decode(Ids{271}), " hello");
  EXPECT_EQ(with.decode(Ids{271, 271}), "hello hello");
  for (const char* text :
       {"hello<sep>hello", "hello<sep> hello", " hello <sep><s> <unk>hello", ""}) {
    const auto options = EncodeOptions{.add_special = false};
    EXPECT_EQ(with.decode(with.encode(text, options), true), text);
    EXPECT_EQ(without.decode(without.encode(text, options), true), text);
  }
  EXPECT_EQ(with.decode(Ids{1, 271}), "hello");
}

// Random vocabularies, also with tokens that go across blanks, applied the plain way.
TEST(Spm, AgreesWithTheDefinition) {
  for (unsigned seed = 1; seed <= 6; ++seed) {
    std::mt19937 random(seed);
    VocabParts parts;
    parts.add("<unk>", 2);
    parts.add("<s>", 3);
    parts.add("</s>", 3);
    std::vector<std::string> known = {"▁", "a", "b", "é"};
    for (const std::string& letter : known) parts.add(letter, 1, -100);
    while (known.size() < 50) {
      std::string joined = known[random() % known.size()] + known[random() % known.size()];
      bool across = joined.find("▁", 1) != std::string::npos;
      if (std::find(known.begin(), known.end(), joined) != known.end()) continue;
      if (across && seed <= 3) continue;
      known.push_back(joined);
      parts.add(joined, 1, -static_cast<float>(random() % 20));
    }
    Tokenizer tokenizer = make_tokenizer(spm_vocab(parts));
    for (int round = 0; round < 200; ++round) {
      std::vector<std::string> pieces = {"▁"};
      std::string text;
      const int longest = round % 4 == 0 ? 250 : 60;  // short and long stretches merge differently
      for (int i = static_cast<int>(random() % longest) + 1; i > 0; --i) {
        pieces.push_back(known[random() % 4]);
        text += pieces.back() == "▁" ? " " : pieces.back();
      }
      for (;;) {
        size_t best = pieces.size();
        float best_score = 0;
        for (size_t i = 0; i + 1 < pieces.size(); ++i) {
          auto id = tokenizer.find(pieces[i] + pieces[i + 1]);
          if (id && (best == pieces.size() || parts.scores[*id] > best_score)) {
            best = i;
            best_score = parts.scores[*id];
          }
        }
        if (best == pieces.size()) break;
        pieces[best] += pieces[best + 1];
        pieces.erase(pieces.begin() + static_cast<long>(best) + 1);
      }
      Ids expected;
      for (const std::string& piece : pieces) expected.push_back(*tokenizer.find(piece));
      ASSERT_EQ(encode(tokenizer, text), expected) << "seed " << seed << ": " << text;
    }
  }
}

TEST(Spm, LongTextsAreNotQuadratic) {
  Tokenizer tokenizer = make_tokenizer(spm_vocab(spm_parts()));
  const double start = testing::cpu_seconds();
  EXPECT_EQ(encode(tokenizer, std::string(1 << 20, 'l')).size(), (size_t{1} << 19) + 1);
  EXPECT_EQ(encode(tokenizer, std::string(1 << 20, ' ')).size(), (size_t{1} << 20) + 1);
  EXPECT_LT(testing::cpu_seconds() - start,
            30);  // 0.6 s without sanitizers; a quadratic one takes minutes
}

TEST(Spm, DecodesBlanks) {
  EXPECT_EQ(Spm::decode_text("▁a▁▁b"), " a  b");
  EXPECT_EQ(Spm::decode_text("x"), "x");
}

}  // namespace
}  // namespace spillway

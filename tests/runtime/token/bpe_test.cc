// Tests of runtime/token/bpe.h through Tokenizer: merge order, bytes, long words, bad merge lists.
#include "runtime/token/bpe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "kernels/core/error.h"
#include "tests/runtime/token/tokenizer_vocabs.h"
#include "tests/support/cpu_seconds.h"

namespace spillway {
namespace {

using Ids = std::vector<int32_t>;
using testing::gpt2_parts;
using testing::gpt2_vocab;
using testing::make_tokenizer;
using testing::VocabParts;

TEST(Bpe, MergesInTheOrderOfTheList) {
  Tokenizer tokenizer = make_tokenizer(gpt2_vocab(gpt2_parts()));
  EXPECT_EQ(tokenizer.encode("hello world"), (Ids{259, 264}));
  EXPECT_EQ(tokenizer.encode("held"), (Ids{256, 263}));
  EXPECT_EQ(tokenizer.encode("lll"), (Ids{257, 'l'}));  // of equal rank the leftmost
  EXPECT_EQ(tokenizer.encode("llll"), (Ids{257, 257}));
  EXPECT_EQ(tokenizer.encode("shell"), (Ids{'s', 258}));
  EXPECT_EQ(tokenizer.encode(" word"), (Ids{262, 'd'}));
  EXPECT_EQ(tokenizer.encode(""), Ids{});
}

TEST(Bpe, MergesNotAcrossWords) {
  Tokenizer tokenizer = make_tokenizer(gpt2_vocab(gpt2_parts()));
  // "he" and "ll" are words of their own here.
  EXPECT_EQ(tokenizer.encode("he1ll"), (Ids{256, '1', 257}));
  EXPECT_EQ(tokenizer.encode("he\nllo"), (Ids{256, '\n', 257, 'o'}));
}

TEST(Bpe, AnyBytesComeBack) {
  Tokenizer tokenizer = make_tokenizer(gpt2_vocab(gpt2_parts()));
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  Ids ids = tokenizer.encode(all);
  EXPECT_EQ(tokenizer.decode(ids), all);
  EXPECT_EQ(tokenizer.encode("\xC3\xA9"), (Ids{0xC3, 0xA9}));
  EXPECT_EQ(tokenizer.encode("\xFFhello"), (Ids{0xFF, 259}));  // not UTF-8
  EXPECT_EQ(tokenizer.encode("h\xE2\x82"), (Ids{'h', 0xE2, 0x82}));
}

TEST(Bpe, BytesThatAreNoTokensAreLeftOut) {
  VocabParts parts = gpt2_parts();
  parts.tokens['z'] = "somethingelse";
  EXPECT_EQ(make_tokenizer(gpt2_vocab(parts)).encode("zhez"), (Ids{256}));
}

TEST(Bpe, WholeWordsWinWhereThePretokeniserSaysSo) {
  VocabParts parts = gpt2_parts();
  int whole = parts.add("held");  // no merge makes it
  EXPECT_EQ(make_tokenizer(gpt2_vocab(parts)).encode("held"), (Ids{256, 263}));
  auto bare = EncodeOptions{.add_special = false};
  EXPECT_EQ(make_tokenizer(gpt2_vocab(parts, "llama-bpe")).encode("held", bare), (Ids{whole}));
}

// Random merge lists over three letters, applied the plain way: again and again the best pair of
// the whole word.
TEST(Bpe, AgreesWithTheDefinition) {
  std::mt19937 random(7);
  VocabParts parts;
  for (int byte = 0; byte < 256; ++byte) parts.add(testing::byte_letter(byte));
  std::vector<std::string> known = {"a", "b", "c"};
  while (parts.merges.size() < 60) {
    std::string left = known[random() % known.size()];
    std::string right = known[random() % known.size()];
    if (std::find(known.begin(), known.end(), left + right) != known.end()) continue;
    known.push_back(left + right);
    parts.add(left + right);
    parts.merges.push_back(left + " " + right);
  }
  Tokenizer tokenizer = make_tokenizer(gpt2_vocab(parts).set_bool("x", true));
  for (int round = 0; round < 400; ++round) {
    std::vector<std::string> pieces;
    std::string text;
    int length = 1 + static_cast<int>(random() % (round % 2 ? 40 : 200));
    for (int i = 0; i < length; ++i) pieces.push_back(known[random() % 3]);
    for (const std::string& piece : pieces) text += piece;
    for (;;) {
      size_t best_rank = parts.merges.size();
      size_t best = 0;
      for (size_t i = 0; i + 1 < pieces.size(); ++i) {
        std::string line = pieces[i] + " " + pieces[i + 1];
        size_t rank =
            std::find(parts.merges.begin(), parts.merges.end(), line) - parts.merges.begin();
        if (rank < best_rank) {
          best_rank = rank;
          best = i;
        }
      }
      if (best_rank == parts.merges.size()) break;
      pieces[best] += pieces[best + 1];
      pieces.erase(pieces.begin() + static_cast<long>(best) + 1);
    }
    Ids expected;
    for (const std::string& piece : pieces) expected.push_back(*tokenizer.find(piece));
    ASSERT_EQ(tokenizer.encode(text), expected) << text;
  }
}

// Expected ids by hand: blanks are ▁, characters merge across words, line ends stay whole, what is
// no token is spelled in bytes.
TEST(Bpe, PlainTextAsInGemma4) {
  VocabParts parts;
  parts.add("<bos>", 3);                                                                       // 0
  parts.add("<0xC3>", 6);                                                                      // 1
  parts.add("<0xA9>", 6);                                                                      // 2
  for (const char* text : {"▁", "a", "b", "▁a", "ab", "ab▁a", "\n", "\n\n"}) parts.add(text);  // 3…
  parts.merges = {"▁ a", "a b", "ab ▁a"};
  testing::GgufBuilder builder;
  builder.set_string("tokenizer.ggml.model", "gemma4")
      .set_strings("tokenizer.ggml.tokens", parts.tokens)
      .set_array<int32_t>("tokenizer.ggml.token_type", parts.types)
      .set_strings("tokenizer.ggml.merges", parts.merges)
      .set_u32("tokenizer.ggml.bos_token_id", 0)
      .set_u32("tokenizer.ggml.eos_token_id", 0)
      .set_bool("tokenizer.ggml.add_bos_token", false);  // what its first files say, wrongly
  Tokenizer tokenizer = make_tokenizer(builder);
  EXPECT_EQ(tokenizer.description(), "gemma4 (BPE of characters)");
  EXPECT_EQ(tokenizer.encode("ab a"), (Ids{0, 8}));
  EXPECT_EQ(tokenizer.encode("a\n\n\n b"), (Ids{0, 4, 9, 9, 9, 3, 5}));
  EXPECT_EQ(tokenizer.encode("a\n\nb"), (Ids{0, 4, 10, 5}));
  EXPECT_EQ(tokenizer.encode("aéb\xC3"), (Ids{0, 4, 1, 2, 5, 1}));
  EXPECT_EQ(tokenizer.encode("aúb"), (Ids{0, 4, 1, 5}));  // <0xBA> is no token
  std::string text;
  for (int i = 0; i < 50; ++i) text += "a é ab";
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
}

TEST(Bpe, LongWordsAreNotQuadratic) {
  Tokenizer tokenizer = make_tokenizer(gpt2_vocab(gpt2_parts()));
  const double start = testing::cpu_seconds();
  EXPECT_EQ(tokenizer.encode(std::string(1 << 20, 'l')).size(), size_t{1} << 19);
  EXPECT_LT(testing::cpu_seconds() - start,
            30);  // 0.4 s without sanitizers; a quadratic one takes minutes
}

TEST(Bpe, RefusesBadMerges) {
  auto refused = [](const std::string& merge, const std::string& reason) {
    VocabParts parts = gpt2_parts();
    parts.merges.push_back(merge);
    try {
      make_tokenizer(gpt2_vocab(parts));
      ADD_FAILURE() << "accepted '" << merge << "'";
    } catch (const Error& error) {
      EXPECT_NE(error.message().find(reason), std::string::npos) << error.what();
      EXPECT_NE(error.message().find("merges[9]"), std::string::npos) << error.what();
    }
  };
  refused("", "is not two texts");
  refused("hello", "is not two texts");
  refused("he ", "is not two texts");
  refused(" he", "is not two texts");
  refused("he he", "does not have");
  refused("nothere h", "does not have");
  VocabParts parts = gpt2_parts();
  auto builder = gpt2_vocab(parts);
  EXPECT_NO_THROW(make_tokenizer(builder));
  parts.merges.push_back(parts.merges[0]);  // twice the same: the first counts
  EXPECT_EQ(make_tokenizer(gpt2_vocab(parts)).encode("hello"), (Ids{259}));
}

TEST(Bpe, DecodesLetters) {
  EXPECT_EQ(Bpe::decode_text("Ġhello"), " hello");
  EXPECT_EQ(Bpe::decode_text("ĊÃ©"), "\n\xC3\xA9");
  EXPECT_EQ(Bpe::decode_text("▁x"), "▁x");  // a letter that stands for no byte
}

}  // namespace
}  // namespace spillway

// Tests of runtime/token/tokenizer.h: special tokens, BOS and EOS, pieces, bad vocabularies, and
// the expected ids of real ones where the shared data are there.
#include "runtime/token/tokenizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>
#include <thread>

#include "kernels/core/error.h"
#include "tests/runtime/token/tokenizer_vocabs.h"

namespace spillway {
namespace {

using Ids = std::vector<int32_t>;
using testing::GgufBuilder;
using testing::gpt2_parts;
using testing::gpt2_vocab;
using testing::make_tokenizer;
using testing::spm_parts;
using testing::spm_vocab;
using testing::VocabParts;

TEST(Tokenizer, FindsSpecialTokensInText) {
  Tokenizer tokenizer = make_tokenizer(gpt2_vocab(gpt2_parts()));
  EXPECT_EQ(tokenizer.encode("<|im_start|>hello<|im_end|>"), (Ids{265, 259, 266}));
  EXPECT_EQ(tokenizer.encode("hello<|im_end|"),
            (Ids{259, '<', '|', 'i', 'm', '_', 'e', 'n', 'd', '|'}));
  EXPECT_EQ(tokenizer.encode("<tool><to"), (Ids{267, 268}));  // the longer one first
  EXPECT_EQ(tokenizer.encode("<|unused|>").size(), 10u);      // unused tokens are not matched
}

TEST(Tokenizer, WithoutParseSpecialControlTokensAreLetters) {
  Tokenizer tokenizer = make_tokenizer(gpt2_vocab(gpt2_parts()));
  Ids ids = tokenizer.encode("<|im_end|><tool>", {.parse_special = false});
  EXPECT_EQ(ids.size(), 11u);
  EXPECT_EQ(ids[0], '<');
  EXPECT_EQ(ids.back(), 267);  // user-defined tokens stay tokens
}

TEST(Tokenizer, LongerSpecialTokensWinWhereTheyOverlap) {
  VocabParts parts = gpt2_parts();
  int abc = parts.add("ABC", 4);
  int cdef = parts.add("CDEF", 4);
  Tokenizer tokenizer = make_tokenizer(gpt2_vocab(parts));
  EXPECT_EQ(tokenizer.encode("ABCDEF"), (Ids{'A', 'B', cdef}));
  EXPECT_EQ(tokenizer.encode("ABCDE"), (Ids{abc, 'D', 'E'}));
}

TEST(Tokenizer, AddsBosAndEosAsTheFileAsks) {
  GgufBuilder plain = gpt2_vocab(gpt2_parts());
  EXPECT_EQ(make_tokenizer(plain).encode("hello"), (Ids{259}));
  EXPECT_FALSE(make_tokenizer(plain).adds_bos());
  GgufBuilder both = gpt2_vocab(gpt2_parts());
  both.set_bool("tokenizer.ggml.add_bos_token", true)
      .set_bool("tokenizer.ggml.add_eos_token", true);
  Tokenizer tokenizer = make_tokenizer(both);
  EXPECT_TRUE(tokenizer.adds_bos());
  EXPECT_EQ(tokenizer.encode("hello"), (Ids{265, 259, 266}));
  EXPECT_EQ(tokenizer.encode(""), (Ids{265, 266}));
  EXPECT_EQ(tokenizer.encode("hello", {.add_special = false}), (Ids{259}));
  // What these models do when the file says nothing.
  EXPECT_EQ(make_tokenizer(spm_vocab(spm_parts())).encode("hello"), (Ids{1, 271}));
  EXPECT_EQ(make_tokenizer(gpt2_vocab(gpt2_parts(), "llama-bpe")).encode("hello"), (Ids{265, 259}));
}

TEST(Tokenizer, KnowsWhatEndsATurn) {
  VocabParts parts = gpt2_parts();
  int eot = parts.add("<|eot_id|>", 1);  // a control token whatever the file calls it
  Tokenizer tokenizer = make_tokenizer(gpt2_vocab(parts));
  EXPECT_TRUE(tokenizer.is_end(266));
  EXPECT_TRUE(tokenizer.is_end(eot));
  EXPECT_FALSE(tokenizer.is_end(265));
  EXPECT_FALSE(tokenizer.is_end(-1));
  EXPECT_EQ(tokenizer.kind(eot), TokenKind::kControl);
  EXPECT_EQ(tokenizer.piece(eot), "");
  int custom = parts.add("<turn-over>", 3);
  Tokenizer with_eot =
      make_tokenizer(gpt2_vocab(parts).set_u32("tokenizer.ggml.eot_token_id", custom));
  EXPECT_TRUE(with_eot.is_end(custom));
  EXPECT_FALSE(make_tokenizer(gpt2_vocab(parts)).is_end(custom));
}

TEST(Tokenizer, EndOfAMessagePartIsNoEnd) {
  VocabParts parts = gpt2_parts();
  int end = parts.add("<|end|>", 3);
  EXPECT_TRUE(make_tokenizer(gpt2_vocab(parts)).is_end(end));
  int back = parts.add("<|return|>", 3);
  int call = parts.add("<|call|>", 3);
  Tokenizer tokenizer = make_tokenizer(gpt2_vocab(parts));
  EXPECT_FALSE(tokenizer.is_end(end));
  EXPECT_TRUE(tokenizer.is_end(back));
  EXPECT_TRUE(tokenizer.is_end(call));
}

TEST(Tokenizer, PiecesAndLookUps) {
  Tokenizer tokenizer = make_tokenizer(gpt2_vocab(gpt2_parts()));
  EXPECT_EQ(tokenizer.vocab_size(), 270);
  EXPECT_EQ(tokenizer.piece(264), " world");
  EXPECT_EQ(tokenizer.piece(265), "");
  EXPECT_EQ(tokenizer.piece(265, true), "<|im_start|>");
  EXPECT_EQ(tokenizer.piece(267), "<tool>");
  EXPECT_EQ(tokenizer.piece(269), "");
  EXPECT_EQ(tokenizer.token_text(264), "Ġworld");
  EXPECT_EQ(tokenizer.find("Ġworld"), 264);
  EXPECT_EQ(tokenizer.find("no such token"), std::nullopt);
  EXPECT_EQ(tokenizer.find(""), std::nullopt);
  EXPECT_EQ(tokenizer.bos(), 265);
  EXPECT_EQ(tokenizer.eos(), 266);
  EXPECT_EQ(tokenizer.description(), "gpt2 (gpt-2)");
  EXPECT_EQ(tokenizer.decode(Ids{265, 259, 264, 266}), "hello world");
  EXPECT_EQ(tokenizer.decode(Ids{265, 259}, true), "<|im_start|>hello");
  Tokenizer spm = make_tokenizer(spm_vocab(spm_parts()));
  EXPECT_EQ(spm.piece(3 + '\n'), "\n");
  EXPECT_EQ(spm.piece(271), " hello");
  EXPECT_EQ(spm.piece(0), "");
  EXPECT_EQ(spm.bos(), 1);
  EXPECT_EQ(spm.eos(), 2);
  EXPECT_EQ(spm.description(), "llama (SentencePiece)");
}

TEST(Tokenizer, TokenIdsOutOfRangeAreBugs) {
  Tokenizer tokenizer = make_tokenizer(gpt2_vocab(gpt2_parts()));
  EXPECT_DEATH(tokenizer.piece(270), "CHECK|270");
  EXPECT_DEATH(tokenizer.piece(-1), "CHECK|-1");
}

TEST(Tokenizer, Phi3DropsWhiteSpaceAfterSpecialTokens) {
  VocabParts parts = gpt2_parts();
  GgufBuilder builder = gpt2_vocab(parts);
  EXPECT_EQ(make_tokenizer(builder).encode("<|im_end|>\n hello"), (Ids{266, '\n', ' ', 259}));
  builder.set_string("general.name", "Phi-3-mini");
  EXPECT_EQ(make_tokenizer(builder).encode("<|im_end|>\n hello"), (Ids{266, 259}));
  EXPECT_EQ(make_tokenizer(builder).encode("<|im_end|> \n"), (Ids{266}));
}

TEST(Tokenizer, EmptyTokenTextsAreNamed) {
  VocabParts parts = gpt2_parts();
  int a = parts.add("");
  int b = parts.add("");
  Tokenizer tokenizer = make_tokenizer(gpt2_vocab(parts));
  EXPECT_EQ(tokenizer.find("[EMPTY_270]"), a);
  EXPECT_EQ(tokenizer.find("[EMPTY_271]"), b);
}

TEST(Tokenizer, EncodesFromSeveralThreads) {
  Tokenizer tokenizer = make_tokenizer(gpt2_vocab(gpt2_parts()));
  std::string text;
  for (int i = 0; i < 2000; ++i) text += "hello world<|im_end|>";
  Ids expected = tokenizer.encode(text);
  std::vector<Ids> results(4);
  {
    std::vector<std::jthread> threads;
    for (Ids& result : results) {
      threads.emplace_back([&] { result = tokenizer.encode(text); });
    }
  }
  for (const Ids& result : results) EXPECT_EQ(result, expected);
}

void expect_refused(const GgufBuilder& builder, const std::string& reason) {
  try {
    make_tokenizer(builder);
    ADD_FAILURE() << "accepted; expected: " << reason;
  } catch (const Error& error) {
    EXPECT_NE(error.message().find(reason), std::string::npos) << error.what();
    EXPECT_NE(error.where().find("vocab.gguf"), std::string::npos) << error.what();
  }
}

TEST(Tokenizer, RefusesBadVocabularies) {
  expect_refused(GgufBuilder().set_u32("a", 1), "'tokenizer.ggml.model' (a string) is missing");
  expect_refused(GgufBuilder().set_string("tokenizer.ggml.model", "bert"), "'bert'");
  GgufBuilder model;
  model.set_string("tokenizer.ggml.model", "gpt2");
  expect_refused(model, "tokenizer.ggml.tokens is missing");
  expect_refused(model.set_array<int32_t>("tokenizer.ggml.tokens", {1, 2}),
                 "not a list of strings");

  VocabParts parts = gpt2_parts();
  parts.types.pop_back();
  expect_refused(gpt2_vocab(parts), "one integer for each of the 270 tokens");
  parts = gpt2_parts();
  parts.types[5] = 9;
  expect_refused(gpt2_vocab(parts), "token 5 is 9");
  parts = gpt2_parts();
  parts.add("hello");
  expect_refused(gpt2_vocab(parts), "token 270 has the same text as token 259: 'hello'");
  expect_refused(gpt2_vocab(gpt2_parts(), "nosuch"), "'nosuch'");
  expect_refused(gpt2_vocab(gpt2_parts()).set_u32("tokenizer.ggml.eot_token_id", 270),
                 "eot_token_id is 270, the vocabulary has 270 tokens");
  expect_refused(gpt2_vocab(gpt2_parts()).set_string("tokenizer.ggml.add_bos_token", "yes"),
                 "must be a bool");

  parts = spm_parts();
  parts.scores.pop_back();
  expect_refused(spm_vocab(parts), "one number for each");
  parts = spm_parts();
  parts.scores[7] = std::nanf("");
  expect_refused(spm_vocab(parts), "token 7 is not a number");
}

TEST(Tokenizer, RefusesBosThatIsAskedForButNotNamed) {
  VocabParts parts = gpt2_parts();
  GgufBuilder builder;
  builder.set_string("tokenizer.ggml.model", "gpt2")
      .set_strings("tokenizer.ggml.tokens", parts.tokens)
      .set_strings("tokenizer.ggml.merges", parts.merges);
  EXPECT_EQ(make_tokenizer(builder).bos(), std::nullopt);
  EXPECT_EQ(make_tokenizer(builder).encode("hello"), (Ids{259}));
  GgufBuilder with_eos = builder;
  expect_refused(with_eos.set_bool("tokenizer.ggml.add_eos_token", true), "add_eos_token is true");
  expect_refused(builder.set_bool("tokenizer.ggml.add_bos_token", true), "add_bos_token is true");
}

// Bytes of a file's header changed at random: refused, or a tokeniser that keeps its promises.
TEST(Tokenizer, DamagedFilesAreRefusedOrWork) {
  std::mt19937 random(11);
  for (const GgufBuilder& builder : {gpt2_vocab(gpt2_parts()), spm_vocab(spm_parts())}) {
    testing::TempDir dir;
    std::string good = builder.bytes();
    int refused = 0;
    for (int round = 0; round < 1500; ++round) {
      std::string bad = good;
      for (int flips = 1 + static_cast<int>(random() % 3); flips > 0; --flips) {
        bad[random() % bad.size()] = static_cast<char>(random());
      }
      try {
        Tokenizer tokenizer = Tokenizer::make(Gguf::open(dir.write("bad.gguf", bad)));
        Ids ids = tokenizer.encode("hello <|im_start|> world \xFF é");
        for (int32_t id : ids) EXPECT_LT(id, tokenizer.vocab_size());
        tokenizer.decode(ids, true);
      } catch (const Error&) {
        ++refused;
      }
    }
    EXPECT_GT(refused, 100);
    EXPECT_LT(refused, 1500);  // or nothing was tried
  }
}

// The folder of shared test data, or "" when it is not there.
std::string shared_folder() {
  const char* named = std::getenv("SPILLWAY_SHARED");
  std::string folder = named != nullptr ? named : std::string(SPILLWAY_SOURCE_DIR) + "/../shared";
  return std::filesystem::is_directory(folder + "/data/vocab") ? folder : "";
}

// llama.cpp's own test files: texts with a separator line between them, and a line of ids for each.
void expect_ids(const Tokenizer& tokenizer, const std::string& path) {
  std::string texts = testing::read_file(path + ".inp");
  std::istringstream lines(testing::read_file(path + ".out"));
  const std::string separator = "\n__ggml_vocab_test__\n";
  int cases = 0;
  for (size_t at = 0; at <= texts.size(); ++cases) {
    size_t end = std::min(texts.find(separator, at), texts.size());
    std::string line;
    std::getline(lines, line);
    std::istringstream numbers(line);
    Ids expected;
    for (int32_t id; numbers >> id;) expected.push_back(id);
    std::string text = texts.substr(at, end - at);
    Ids ids = tokenizer.encode(text, {.add_special = false, .parse_special = false});
    EXPECT_EQ(ids, expected) << path << ", text " << cases;
    EXPECT_EQ(tokenizer.decode(ids), text) << path << ", text " << cases;
    at = end + separator.size();
  }
  EXPECT_GE(cases, 46) << path;
}

TEST(Tokenizer, RealVocabulariesGiveTheExpectedIds) {
  std::string folder = shared_folder();
  if (folder.empty()) GTEST_SKIP() << "no vocabularies: set SPILLWAY_SHARED to the shared folder";
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder + "/data/vocab")) {
    if (entry.path().extension() != ".gguf") continue;
    ++files;
    std::string path = entry.path().string();
    expect_ids(Tokenizer::make(Gguf::open(path)), path);
  }
  EXPECT_GT(files, 0) << "no *.gguf in " << folder << "/data/vocab";
}

// What a command writes; nothing when it fails.
std::string output_of(const std::string& command) {
  std::string out;
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return out;
  char buffer[65536];
  while (size_t got = fread(buffer, 1, sizeof(buffer), pipe)) out.append(buffer, got);
  return pclose(pipe) == 0 ? out : "";
}

// llama.cpp's test of llama-bpe, whose vocabulary is Llama 3.1's tokenizer.json.
TEST(Tokenizer, Llama3GivesTheExpectedIds) {
  const std::string folder = shared_folder() + "/data/vocab";
  const std::string packed = folder + "/llama3_1.tokenizer.json.xz";
  if (!std::filesystem::exists(packed)) GTEST_SKIP() << "no " << packed;
  const std::string text = output_of("xz -dc '" + packed + "'");
  if (text.empty()) GTEST_SKIP() << "xz cannot unpack " << packed;
  const auto json = nlohmann::json::parse(text);
  VocabParts parts;
  parts.tokens.resize(json["model"]["vocab"].size() + json["added_tokens"].size());
  parts.types.assign(parts.tokens.size(), 1);
  for (const auto& [token, id] : json["model"]["vocab"].items()) parts.tokens[id] = token;
  for (const auto& added : json["added_tokens"]) {
    parts.tokens[added["id"]] = added["content"];
    parts.types[added["id"].get<size_t>()] = added["special"] ? 3 : 4;
  }
  for (const auto& merge : json["model"]["merges"]) {
    parts.merges.push_back(merge.is_string()
                               ? merge.get<std::string>()
                               : merge[0].get<std::string>() + " " + merge[1].get<std::string>());
  }
  Tokenizer tokenizer = make_tokenizer(gpt2_vocab(parts, "llama-bpe"));
  expect_ids(tokenizer, folder + "/ggml-vocab-llama-bpe.gguf");
}

}  // namespace
}  // namespace spillway

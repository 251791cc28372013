// Fuzz target: the first byte chooses a vocabulary and how to encode, the rest is the text.
// Findings, beside what the sanitizers see: any exception; an id of no token; a text that does not
// come back from its ids; byte pairs merged otherwise than by the textbook (a quadratic loop over
// the merge list, here); a Detokenizer that gives other text or an unfinished character.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/token/detokenizer.h"
#include "runtime/token/pretokenize.h"
#include "runtime/token/tokenizer.h"
#include "runtime/token/tokenizer_utf8.h"
#include "tests/fuzz/oracle.h"
#include "tests/runtime/token/tokenizer_vocabs.h"

namespace spillway::fuzz {
namespace {

using testing::GgufBuilder;
using testing::VocabParts;

Tokenizer open_tokenizer(const GgufBuilder& builder) {
  const std::string bytes = builder.bytes();
  const int descriptor = ::memfd_create("vocab.gguf", MFD_CLOEXEC);
  expect(::write(descriptor, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()),
         "cannot write the vocabulary");
  Gguf gguf = Gguf::open("/proc/self/fd/" + std::to_string(descriptor));
  ::close(descriptor);  // the mapping stays
  return Tokenizer::make(gguf);
}

// What the tokenizer is, and what is needed to judge it.
using Ranks = std::map<std::pair<std::string, std::string>, size_t>;
struct Subject {
  Tokenizer tokenizer;
  Ranks ranks;                          // of the merge list
  std::unique_ptr<Pretokenizer> words;  // byte pairs only
};

Ranks ranks_of(const VocabParts& parts) {
  Ranks ranks;
  for (size_t i = 0; i < parts.merges.size(); ++i) {
    const std::string& line = parts.merges[i];
    const size_t blank = line.find(' ', 1);
    ranks.emplace(std::pair(line.substr(0, blank), line.substr(blank + 1)), i);
  }
  return ranks;
}

// Merges that repeat a letter make long words of many equal candidates.
VocabParts deep_parts() {
  VocabParts parts = testing::gpt2_parts();
  std::string run = "a";
  for (int i = 0; i < 4; ++i) {
    parts.merges.push_back(run + " " + run);
    run += run;
    parts.add(run);
  }
  for (const auto& [left, right] : {std::pair("a", "b"), {"b", "a"}, {"ab", "ab"}, {"aa", "b"}}) {
    parts.merges.push_back(std::string(left) + " " + right);
    parts.add(std::string(left) + right);
  }
  return parts;
}

std::vector<Subject> make_subjects() {
  std::vector<Subject> subjects;
  for (const PretokenizerKind& kind : pretokenizer_kinds()) {
    if (kind.plain_text)
      continue;  // its tokens are no letters of GPT-2: this vocabulary lacks a blank
    const std::string name(kind.names.substr(0, kind.names.find(' ')));
    const VocabParts parts = deep_parts();
    Tokenizer tokenizer = open_tokenizer(testing::gpt2_vocab(parts, name));
    subjects.push_back({std::move(tokenizer), ranks_of(parts),
                        std::make_unique<Pretokenizer>(Pretokenizer::make(name, "here"))});
  }
  for (const bool space : {true, false}) {
    GgufBuilder builder = testing::spm_vocab(testing::spm_parts());
    builder.set_bool("tokenizer.ggml.add_space_prefix", space);
    subjects.push_back({open_tokenizer(builder), {}, nullptr});
  }
  return subjects;
}

// Byte pair encoding as it is defined: the first line of the list that applies, leftmost, again and
// again. Called with words short enough for a quadratic loop.
std::vector<int32_t> by_the_book(const Subject& subject, std::string_view word) {
  std::vector<std::string> pieces;
  for (const char c : word) pieces.push_back(testing::byte_letter(static_cast<uint8_t>(c)));
  const Ranks& ranks = subject.ranks;
  for (;;) {
    size_t best = ranks.size();
    size_t at = 0;
    for (size_t i = 0; i + 1 < pieces.size(); ++i) {
      const auto found = ranks.find({pieces[i], pieces[i + 1]});
      if (found == ranks.end() || found->second >= best) continue;
      best = found->second;
      at = i;
    }
    if (best == ranks.size()) break;
    pieces[at] += pieces[at + 1];
    pieces.erase(pieces.begin() + static_cast<int64_t>(at) + 1);
  }
  std::vector<int32_t> ids;
  for (const std::string& piece : pieces) ids.push_back(*subject.tokenizer.find(piece));
  return ids;
}

// A word that is a token as it stands is that token for some kinds.
std::vector<int32_t> expected_ids(const Subject& subject, std::string_view text) {
  std::vector<std::string_view> words;
  subject.words->split(text, words);
  std::vector<int32_t> ids;
  for (const std::string_view word : words) {
    std::string letters;
    for (const char c : word) letters += testing::byte_letter(static_cast<uint8_t>(c));
    const auto whole = subject.tokenizer.find(letters);
    if (subject.words->kind().whole_words && whole) {
      ids.push_back(*whole);
      continue;
    }
    for (const int32_t id : by_the_book(subject, word)) ids.push_back(id);
  }
  return ids;
}

bool valid_utf8(std::string_view text) { return utf8_valid_prefix(text) == text.size(); }

void check_detokenizer(const Tokenizer& tokenizer, const std::vector<int32_t>& ids,
                       const std::string* whole) {
  Detokenizer detokenizer(tokenizer);
  std::string text;
  for (const int32_t id : ids) {
    const std::string piece = detokenizer.push(id);
    expect(valid_utf8(piece), "the detokenizer gives half a character");
    text += piece;
  }
  const std::string rest = detokenizer.finish();
  expect(valid_utf8(rest), "the detokenizer ends on half a character");
  text += rest;
  if (whole != nullptr) expect(text == *whole, "the detokenizer gives other text");
}

void check_text(const Subject& subject, std::string_view text, const EncodeOptions& options) {
  const Tokenizer& tokenizer = subject.tokenizer;
  const std::vector<int32_t> ids = tokenizer.encode(text, options);
  // "▁" for a blank, and one before the text.
  expect(ids.size() <= 3 * text.size() + 4, "more ids than bytes");
  for (const int32_t id : ids) expect(id >= 0 && id < tokenizer.vocab_size(), "an id of no token");
  const auto has = [&](std::string_view word) { return text.find(word) != std::string_view::npos; };
  std::vector<int32_t> plain = ids;
  if (!plain.empty() && options.add_special && tokenizer.adds_bos()) plain.erase(plain.begin());
  // A blank is put after a user-defined token of SentencePiece, and "▁" comes back as a blank.
  const bool spm = subject.words == nullptr;
  if (spm && (has("<") || has("\xE2\x96\x81"))) return;
  const std::string back = tokenizer.decode(plain, true);
  if (back != text) finding("decode(encode(x)) is '" + back + "'");
  if (!spm && !has("<")) {
    expect(plain == expected_ids(subject, text), "ids that are not by the book");
    if (valid_utf8(text)) check_detokenizer(tokenizer, plain, &back);
  }
}

}  // namespace
}  // namespace spillway::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace spillway::fuzz;
  static const std::vector<Subject> subjects = make_subjects();
  if (size < 2) return 0;
  const Subject& subject = subjects[data[0] % subjects.size()];
  const std::string_view text(reinterpret_cast<const char*>(data) + 2, size - 2);
  check_text(subject, text, {(data[1] & 1) != 0, (data[1] & 2) != 0});
  std::vector<int32_t> any;
  for (const char c : text) {
    any.push_back((static_cast<uint8_t>(c) * 7 + data[1]) % subject.tokenizer.vocab_size());
  }
  subject.tokenizer.decode(any, (data[1] & 4) != 0);
  check_detokenizer(subject.tokenizer, any, nullptr);
  return 0;
}

// See bpe.h.
#include "runtime/token/bpe.h"

#include <algorithm>

#include "kernels/core/error.h"
#include "runtime/token/tokenizer_utf8.h"
#include "runtime/token/word_cache.h"

namespace spillway {
namespace {

constexpr const char* kMergesKey = "tokenizer.ggml.merges";
// Up to here looking for the best pair again after each merge is faster than a queue.
constexpr size_t kShortWord = 64;

// GPT-2's letters for bytes: printable bytes of Latin-1 stand for themselves, the others are
// U+0100 and up in order.
bool is_own_letter(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

struct Letters {
  std::array<std::string, 256> of_byte;
  std::array<int, 0x144> to_byte;  // by code point; -1 where there is none

  Letters() {
    to_byte.fill(-1);
    int next = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      int letter = is_own_letter(byte) ? byte : next++;
      to_byte[letter] = byte;
      if (letter < 0x80) {
        of_byte[byte] = std::string(1, static_cast<char>(letter));
      } else {
        of_byte[byte] = {static_cast<char>(0xC0 | letter >> 6),
                         static_cast<char>(0x80 | (letter & 0x3F))};
      }
    }
  }
};

const Letters& letters() {
  static const Letters kLetters;
  return kLetters;
}

uint64_t pair_of(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

uint64_t hash(uint64_t pair) {
  pair *= 0x9E3779B97F4A7C15ull;  // 2^64 / golden ratio
  return pair ^ (pair >> 32);
}

// Gemma 4's model says what its pre-tokeniser is.
std::string_view pretokenizer_name(const Gguf& gguf) {
  const bool gemma4 = gguf.string_or("tokenizer.ggml.model", "") == "gemma4";
  return gemma4 ? "gemma4" : gguf.string_or("tokenizer.ggml.pre", "");
}

constexpr std::string_view kBlank = "\xE2\x96\x81";  // U+2581, which stands for a blank

std::string with_blanks(std::string_view text) {
  std::string out;
  for (char c : text) {
    if (c == ' ') {
      out += kBlank;
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace

Bpe::Bpe(const Vocabulary& vocabulary)
    : vocabulary_(&vocabulary),
      pretokenizer_(Pretokenizer::make(pretokenizer_name(vocabulary.gguf()), vocabulary.path())) {
  for (int byte = 0; byte < 256; ++byte) {
    byte_ids_[byte] = pretokenizer_.kind().plain_text
                          ? vocabulary.find_byte(static_cast<uint8_t>(byte))
                          : vocabulary.find(letters().of_byte[byte]);
  }
  read_merges();
}

void Bpe::read_merges() {
  const GgufValue* value = vocabulary_->gguf().find(kMergesKey);
  auto lines = value == nullptr ? std::nullopt : value->as_strings();
  if (!lines) {
    throw Error(std::string(kMergesKey) + " is missing or not a list of strings",
                vocabulary_->path(), "convert the model again with a current converter");
  }
  size_t capacity = 16;
  while (capacity * 3 < lines->size() * 4) capacity *= 2;
  merges_.assign(capacity, Merge{0, kNoRank, -1});
  mask_ = capacity - 1;
  n_ranks_ = static_cast<uint32_t>(lines->size());
  for (size_t rank = 0; rank < lines->size(); ++rank) {
    add_merge((*lines)[rank], static_cast<uint32_t>(rank));
  }
}

// "left right": the first blank after the first byte parts them.
void Bpe::add_merge(std::string_view line, uint32_t rank) {
  auto fail = [&](const std::string& reason) {
    throw Error(std::string(kMergesKey) + "[" + std::to_string(rank) + "] '" +
                    std::string(line.substr(0, 80)) + "' " + reason,
                vocabulary_->path(), "convert or download the model again");
  };
  size_t blank = line.find(' ', 1);
  if (blank == std::string_view::npos || blank + 1 == line.size()) fail("is not two texts");
  std::string_view left = line.substr(0, blank);
  std::string_view right = line.substr(blank + 1);
  std::string joined(left);
  joined += right;
  int32_t left_id = vocabulary_->find(left);
  int32_t right_id = vocabulary_->find(right);
  int32_t merged = vocabulary_->find(joined);
  if (left_id < 0 || right_id < 0 || merged < 0) fail("merges what the vocabulary does not have");
  uint64_t pair = pair_of(left_id, right_id);
  size_t at = hash(pair) & mask_;
  while (merges_[at].rank != kNoRank) {
    if (merges_[at].pair == pair) return;  // the first of two equal lines counts
    at = (at + 1) & mask_;
  }
  merges_[at] = {pair, rank, merged};
}

// The merge of two tokens; an entry with kNoRank when there is none.
const Bpe::Merge& Bpe::find_merge(int32_t left, int32_t right) const {
  uint64_t pair = pair_of(left, right);
  size_t at = hash(pair) & mask_;
  while (merges_[at].rank != kNoRank && merges_[at].pair != pair) at = (at + 1) & mask_;
  return merges_[at];
}

void Bpe::encode(std::string_view text, std::vector<int32_t>& ids) const {
  std::string blanked;
  if (pretokenizer_.kind().plain_text) text = blanked = with_blanks(text);
  std::vector<std::string_view> words;
  pretokenizer_.split(text, words);
  Scratch scratch;
  WordCache cache(text.size());
  for (std::string_view word : words) {
    if (cache.append(word, ids)) continue;
    const size_t before = ids.size();
    encode_word(word, scratch, ids);
    cache.put(word, before, ids);
  }
}

void Bpe::encode_word(std::string_view word, Scratch& scratch, std::vector<int32_t>& ids) const {
  if (word.size() > 1 && pretokenizer_.kind().whole_words) {
    scratch.letters.clear();
    for (char c : word) scratch.letters += letters().of_byte[static_cast<uint8_t>(c)];
    int32_t whole = vocabulary_->find(scratch.letters);
    if (whole >= 0) {
      ids.push_back(whole);
      return;
    }
  }
  scratch.ids.clear();
  scratch.unknown.clear();
  if (!pretokenizer_.kind().plain_text) {
    split_bytes(word, scratch);
  } else if (split_characters(word, scratch)) {
    ids.push_back(scratch.ids.front());
    return;
  }
  if (scratch.ids.size() > 1) {
    scratch.ids.size() <= kShortWord ? merge_short(scratch) : merge_long(scratch);
  }
  size_t next_unknown = 0;
  for (int32_t id : scratch.ids) {
    if (id >= 0) ids.push_back(id);
    if (id >= 0 || next_unknown == scratch.unknown.size()) continue;
    for (char c : scratch.unknown[next_unknown++]) {
      const int32_t byte = byte_ids_[static_cast<uint8_t>(c)];
      if (byte >= 0) ids.push_back(byte);
    }
  }
}

void Bpe::split_bytes(std::string_view word, Scratch& scratch) const {
  for (char c : word) scratch.ids.push_back(byte_ids_[static_cast<uint8_t>(c)]);
}

// True when the word is one token, a run of line ends: nothing is to be merged then.
bool Bpe::split_characters(std::string_view word, Scratch& scratch) const {
  const bool line_ends = word.find_first_not_of('\n') == std::string_view::npos;
  const int32_t whole = line_ends ? vocabulary_->find(word) : -1;
  if (whole >= 0) {
    scratch.ids.push_back(whole);
    return true;
  }
  while (!word.empty()) {
    const std::string_view character = word.substr(0, utf8_front(word).bytes);
    const int32_t id = vocabulary_->find(character);
    scratch.ids.push_back(id);
    if (id < 0) scratch.unknown.push_back(character);
    word.remove_prefix(character.size());
  }
  return false;
}

void Bpe::merge_short(Scratch& scratch) const {
  std::vector<int32_t>& ids = scratch.ids;
  std::vector<Merge>& merges = scratch.merges;
  merges.clear();
  for (size_t i = 0; i + 1 < ids.size(); ++i) merges.push_back(find_merge(ids[i], ids[i + 1]));
  while (!merges.empty()) {
    // The leftmost of the lowest rank.
    size_t best = 0;
    for (size_t i = 1; i < merges.size(); ++i) {
      if (merges[i].rank < merges[best].rank) best = i;
    }
    if (merges[best].rank == kNoRank) return;
    ids[best] = merges[best].merged;
    ids.erase(ids.begin() + best + 1);
    merges.erase(merges.begin() + best);
    if (best > 0) merges[best - 1] = find_merge(ids[best - 1], ids[best]);
    if (best < merges.size()) merges[best] = find_merge(ids[best], ids[best + 1]);
  }
}

// The same with a queue of pairs; a pair whose tokens have changed since is dropped when its turn
// comes.
void Bpe::merge_long(Scratch& scratch) const {
  std::vector<int32_t>& ids = scratch.ids;
  std::vector<Merge>& merges = scratch.merges;  // of the token at a position and the next one
  const auto count = static_cast<int32_t>(ids.size());
  std::vector<int32_t> next(count);
  std::vector<int32_t> previous(count);
  merges.assign(count, Merge{0, kNoRank, -1});
  scratch.queue.reserve(n_ranks_);
  const auto offer = [&](int32_t left) {
    if (left < 0) return;
    const bool last = next[left] == count;
    merges[left] = last ? Merge{0, kNoRank, -1} : find_merge(ids[left], ids[next[left]]);
    if (merges[left].rank != kNoRank) scratch.queue.push(merges[left].rank, left);
  };
  for (int32_t i = 0; i < count; ++i) {
    next[i] = i + 1;
    previous[i] = i - 1;
  }
  for (int32_t i = 0; i < count; ++i) offer(i);
  uint32_t rank = 0;
  int32_t left = 0;
  while (scratch.queue.pop(rank, left)) {
    if (merges[left].rank != rank) continue;
    const int32_t right = next[left];
    ids[left] = merges[left].merged;
    merges[right].rank = kNoRank;  // gone
    next[left] = next[right];
    if (next[left] < count) previous[next[left]] = left;
    offer(previous[left]);
    offer(left);
  }
  int32_t kept = 0;
  for (int32_t i = 0; i < count; i = next[i]) ids[kept++] = ids[i];
  ids.resize(kept);
}

std::string Bpe::decode_text(std::string_view text) {
  std::string bytes;
  while (!text.empty()) {
    Utf8Front front = utf8_front(text);
    int letter = -1;
    if (front.bytes == 1) letter = static_cast<uint8_t>(text[0]);
    if (front.bytes == 2) letter = (text[0] & 0x1F) << 6 | (text[1] & 0x3F);
    bool known = front.kind == Utf8Front::kWhole && letter >= 0 && letter < 0x144;
    int byte = known ? letters().to_byte[letter] : -1;
    if (byte >= 0) {
      bytes += static_cast<char>(byte);
    } else {
      bytes += text.substr(0, front.bytes);
    }
    text.remove_prefix(front.bytes);
  }
  return bytes;
}

}  // namespace spillway

// See spm.h.
#include "runtime/token/spm.h"

#include <algorithm>
#include <queue>

namespace spillway {
namespace {

constexpr std::string_view kBlank = "\xE2\x96\x81";  // U+2581, which stands for a blank

// Bytes of the character that a lead byte announces; a stray byte is a character of its own.
int32_t announced_bytes(char lead) {
  auto byte = static_cast<uint8_t>(lead);
  return byte < 0xC0 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

std::string with_blanks(std::string_view text, bool space_before) {
  std::string out(space_before ? kBlank : "");
  out.reserve(text.size() + text.size() / 2);
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

Spm::Spm(const Vocabulary& vocabulary) : vocabulary_(&vocabulary) {
  for (int32_t id = 0; id < vocabulary.size(); ++id) {
    std::string_view text = vocabulary.text(id);
    for (size_t at = text.find(kBlank, 1); at != std::string_view::npos;
         at = text.find(kBlank, at + 1)) {
      joins_blank_[static_cast<uint8_t>(text[at - 1])] = true;
    }
  }
}

void Spm::encode(std::string_view text, bool space_before, std::vector<int32_t>& ids) const {
  std::string blanked = with_blanks(text, space_before);
  std::string_view rest = blanked;
  std::vector<Symbol> symbols;
  while (!rest.empty()) {
    size_t end = rest.find(kBlank, 1);
    while (end != std::string_view::npos && joins_blank_[static_cast<uint8_t>(rest[end - 1])]) {
      end = rest.find(kBlank, end + 1);
    }
    end = std::min(end, rest.size());
    encode_stretch(rest.substr(0, end), symbols, ids);
    rest.remove_prefix(end);
  }
}

void Spm::encode_stretch(std::string_view text, std::vector<Symbol>& symbols,
                         std::vector<int32_t>& ids) const {
  symbols.clear();
  for (size_t at = 0; at < text.size();) {
    auto left = static_cast<int32_t>(text.size() - at);
    int32_t bytes = std::min(announced_bytes(text[at]), left);
    auto index = static_cast<int32_t>(symbols.size());
    symbols.push_back({text.data() + at, bytes, bytes == left ? -1 : index + 1, index - 1});
    at += bytes;
  }
  merge(symbols);
  for (int32_t i = 0; i >= 0; i = symbols[i].next) {
    std::string_view piece(symbols[i].text, symbols[i].bytes);
    int32_t id = vocabulary_->find(piece);
    if (id >= 0) {
      ids.push_back(id);
    } else {
      spell(piece, ids);
    }
  }
}

// The neighbours that make the token of the highest score, of these the leftmost, until no two make
// a token.
void Spm::merge(std::vector<Symbol>& symbols) const {
  struct Candidate {
    float score;
    int32_t left;
    int32_t bytes;                                  // of both; tells whether they changed since
    bool operator<(const Candidate& other) const {  // the heap's top is the greatest
      return score != other.score ? score < other.score : left > other.left;
    }
  };
  std::priority_queue<Candidate> heap;
  auto offer = [&](int32_t left) {
    if (left < 0 || symbols[left].next < 0) return;
    int32_t bytes = symbols[left].bytes + symbols[symbols[left].next].bytes;
    int32_t id = vocabulary_->find({symbols[left].text, static_cast<size_t>(bytes)});
    if (id >= 0) heap.push({vocabulary_->score(id), left, bytes});
  };
  for (size_t i = 0; i + 1 < symbols.size(); ++i) offer(static_cast<int32_t>(i));
  while (!heap.empty()) {
    Candidate top = heap.top();
    heap.pop();
    Symbol& left = symbols[top.left];
    if (left.bytes == 0 || left.next < 0) continue;
    Symbol& right = symbols[left.next];
    if (left.bytes + right.bytes != top.bytes) continue;
    left.bytes = top.bytes;
    right.bytes = 0;
    left.next = right.next;
    if (left.next >= 0) symbols[left.next].previous = top.left;
    offer(left.previous);
    offer(top.left);
  }
}

// In bytes, where the vocabulary has all of them; else as one unknown token.
void Spm::spell(std::string_view text, std::vector<int32_t>& ids) const {
  size_t before = ids.size();
  for (char c : text) {
    int32_t id = vocabulary_->find_byte(static_cast<uint8_t>(c));
    if (id < 0) id = vocabulary_->find({&c, 1});
    if (id >= 0) {
      ids.push_back(id);
      continue;
    }
    ids.resize(before);
    if (vocabulary_->unknown() >= 0) ids.push_back(vocabulary_->unknown());
    return;
  }
}

std::string Spm::decode_text(std::string_view text) {
  std::string out;
  for (size_t at = text.find(kBlank); at != std::string_view::npos; at = text.find(kBlank)) {
    out += text.substr(0, at);
    out += ' ';
    text.remove_prefix(at + kBlank.size());
  }
  return out += text;
}

}  // namespace spillway

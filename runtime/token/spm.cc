// See spm.h.
#include "runtime/token/spm.h"

#include <algorithm>
#include <numeric>

namespace spillway {
namespace {

// Up to here looking for the best pair again after each merge is faster than a queue.
constexpr size_t kShortStretch = 48;
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
  rank_scores();
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    byte_ids_[byte] = vocabulary.find_byte(static_cast<uint8_t>(byte));
    if (byte_ids_[byte] < 0) byte_ids_[byte] = vocabulary.find({&c, 1});
  }
  alone_.fill(true);
  for (int32_t id = 0; id < vocabulary.size(); ++id) {
    std::string_view text = vocabulary.text(id);
    for (char c : text) {
      if (text.size() > 1 && static_cast<uint8_t>(c) < 0x80)
        alone_[static_cast<uint8_t>(c)] = false;
    }
    for (size_t at = text.find(kBlank, 1); at != std::string_view::npos;
         at = text.find(kBlank, at + 1)) {
      joins_blank_[static_cast<uint8_t>(text[at - 1])] = true;
    }
  }
}

void Spm::rank_scores() {
  std::vector<int32_t> order(static_cast<size_t>(vocabulary_->size()));
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(),
            [&](int32_t a, int32_t b) { return vocabulary_->score(a) > vocabulary_->score(b); });
  ranks_.resize(order.size());
  uint32_t rank = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    if (i > 0 && vocabulary_->score(order[i]) != vocabulary_->score(order[i - 1])) ++rank;
    ranks_[static_cast<size_t>(order[i])] = rank;
  }
}

void Spm::encode(std::string_view text, bool space_before, std::vector<int32_t>& ids) const {
  std::string blanked = with_blanks(text, space_before);
  std::string_view rest = blanked;
  Scratch scratch;
  WordCache cache(blanked.size());
  while (!rest.empty()) {
    size_t end = rest.find(kBlank, 1);
    while (end != std::string_view::npos && joins_blank_[static_cast<uint8_t>(rest[end - 1])]) {
      end = rest.find(kBlank, end + 1);
    }
    end = std::min(end, rest.size());
    cut_alone(rest.substr(0, end), cache, scratch, ids);
    rest.remove_prefix(end);
  }
}

void Spm::cut_alone(std::string_view text, WordCache& cache, Scratch& scratch,
                    std::vector<int32_t>& ids) const {
  const auto encode_part = [&](size_t begin, size_t end) {
    const std::string_view part = text.substr(begin, end - begin);
    if (part.empty() || cache.append(part, ids)) return;
    const size_t before = ids.size();
    encode_stretch(part, scratch, ids);
    cache.put(part, before, ids);
  };
  size_t begin = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<uint8_t>(text[i]);
    if (byte >= 0x80 || !alone_[byte]) continue;
    encode_part(begin, i);
    encode_part(i, i + 1);
    begin = i + 1;
  }
  encode_part(begin, text.size());
}

void Spm::encode_stretch(std::string_view text, Scratch& scratch, std::vector<int32_t>& ids) const {
  std::vector<Symbol>& symbols = scratch.symbols;
  symbols.clear();
  for (size_t at = 0; at < text.size();) {
    auto left = static_cast<int32_t>(text.size() - at);
    int32_t bytes = std::min(announced_bytes(text[at]), left);
    auto index = static_cast<int32_t>(symbols.size());
    symbols.push_back(
        {text.data() + at, bytes, bytes == left ? -1 : index + 1, index - 1, kNoRank});
    at += bytes;
  }
  symbols.size() <= kShortStretch ? merge_short(symbols) : merge_long(scratch);
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

// Finds out what a symbol and the next one make.
void Spm::rank_pair(std::vector<Symbol>& symbols, int32_t left) const {
  Symbol& symbol = symbols[left];
  symbol.rank = kNoRank;
  if (symbol.next < 0) return;
  const int32_t bytes = symbol.bytes + symbols[symbol.next].bytes;
  const int32_t id = vocabulary_->find({symbol.text, static_cast<size_t>(bytes)});
  if (id >= 0) symbol.rank = ranks_[id];
}

// Makes one symbol of a symbol and the next one; returns the one before, or -1.
int32_t Spm::join(std::vector<Symbol>& symbols, int32_t left) {
  Symbol& symbol = symbols[left];
  Symbol& gone = symbols[symbol.next];
  symbol.bytes += gone.bytes;
  symbol.next = gone.next;
  gone.bytes = 0;
  gone.rank = kNoRank;
  if (symbol.next >= 0) symbols[symbol.next].previous = left;
  return symbol.previous;
}

// The neighbours that make the token of the highest score, of these the leftmost, until no two make
// a token.
void Spm::merge_short(std::vector<Symbol>& symbols) const {
  const auto count = static_cast<int32_t>(symbols.size());
  for (int32_t i = 0; i + 1 < count; ++i) rank_pair(symbols, i);
  while (true) {
    int32_t best = 0;
    for (int32_t i = symbols[0].next; i >= 0; i = symbols[i].next) {
      if (symbols[i].rank < symbols[best].rank) best = i;
    }
    if (symbols[best].rank == kNoRank) return;
    const int32_t before = join(symbols, best);
    if (before >= 0) rank_pair(symbols, before);
    rank_pair(symbols, best);
  }
}

// The same with a queue; a pair that has changed since is dropped when its turn comes.
void Spm::merge_long(Scratch& scratch) const {
  std::vector<Symbol>& symbols = scratch.symbols;
  scratch.queue.reserve(static_cast<uint32_t>(ranks_.size()));
  const auto offer = [&](int32_t left) {
    if (left < 0) return;
    rank_pair(symbols, left);
    if (symbols[left].rank != kNoRank) scratch.queue.push(symbols[left].rank, left);
  };
  for (size_t i = 0; i + 1 < symbols.size(); ++i) offer(static_cast<int32_t>(i));
  uint32_t rank = 0;
  int32_t left = 0;
  while (scratch.queue.pop(rank, left)) {
    if (symbols[left].rank != rank) continue;
    offer(join(symbols, left));
    offer(left);
  }
}

// In bytes, where the vocabulary has all of them; else as one unknown token.
void Spm::spell(std::string_view text, std::vector<int32_t>& ids) const {
  size_t before = ids.size();
  for (char c : text) {
    const int32_t id = byte_ids_[static_cast<uint8_t>(c)];
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

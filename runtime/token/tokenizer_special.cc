// See tokenizer_special.h.
#include "runtime/token/tokenizer_special.h"

#include <algorithm>
#include <numeric>
#include <string_view>

namespace spillway {
namespace {

// Real ones have under 100 bytes; a hostile vocabulary must not make each position cost megabytes.
constexpr size_t kMaxSpecialBytes = 1024;
constexpr std::string_view kAsciiSpace = " \t\n\v\f\r";

}  // namespace

SpecialMatcher::SpecialMatcher(const Vocabulary& vocabulary, bool strip_after)
    : vocabulary_(&vocabulary), strip_after_(strip_after) {
  for (int32_t id = 0; id < vocabulary.size(); ++id) {
    TokenKind kind = vocabulary.kind(id);
    if (vocabulary.text(id).size() > kMaxSpecialBytes) continue;
    if (kind == TokenKind::kControl || kind == TokenKind::kUserDefined ||
        kind == TokenKind::kUnknown) {
      specials_.push_back({vocabulary.text(id), id});
    }
  }
  // string_view compares bytes as unsigned ones.
  std::sort(specials_.begin(), specials_.end(),
            [](const Special& a, const Special& b) { return a.text < b.text; });
  for (const Special& special : specials_) {
    ++begins_[static_cast<uint8_t>(special.text[0]) + size_t{1}];
  }
  std::partial_sum(begins_.begin(), begins_.end(), begins_.begin());
}

// Tokens that agree with the text so far lie side by side, the one that ends here first; each
// further byte narrows them.
void SpecialMatcher::find_at(std::string_view text, size_t begin, bool all,
                             std::vector<Match>& matches) const {
  auto lead = static_cast<uint8_t>(text[begin]);
  auto low = specials_.begin() + static_cast<int64_t>(begins_[lead]);
  auto high = specials_.begin() + static_cast<int64_t>(begins_[lead + size_t{1}]);
  for (size_t length = 1; low != high; ++length) {
    if (low->text.size() == length) {
      if (all || vocabulary_->kind(low->token) == TokenKind::kUserDefined) {
        matches.push_back({low->token, begin, begin + length});
      }
      ++low;  // no two tokens have one text
    }
    if (begin + length == text.size()) return;
    auto byte = static_cast<uint8_t>(text[begin + length]);
    auto at = [&](const Special& special) { return static_cast<uint8_t>(special.text[length]); };
    low = std::partition_point(low, high, [&](const Special& s) { return at(s) < byte; });
    high = std::partition_point(low, high, [&](const Special& s) { return at(s) == byte; });
  }
}

std::vector<SpecialMatcher::Match> SpecialMatcher::find_all(std::string_view text, bool all) const {
  std::vector<Match> matches;
  for (size_t begin = 0; begin < text.size(); ++begin) find_at(text, begin, all, matches);
  return matches;
}

// Longest tokens first, then by id, each from left to right, where nothing is taken yet. A taken
// piece is never shorter than the one that is tried, so looking at the two end bytes is enough.
std::vector<SpecialMatcher::Match> SpecialMatcher::choose(std::vector<Match> matches,
                                                          size_t text_bytes) const {
  std::sort(matches.begin(), matches.end(), [](const Match& a, const Match& b) {
    size_t a_bytes = a.end - a.begin;
    size_t b_bytes = b.end - b.begin;
    if (a_bytes != b_bytes) return a_bytes > b_bytes;
    return a.token != b.token ? a.token < b.token : a.begin < b.begin;
  });
  std::vector<bool> taken(text_bytes);
  std::vector<Match> chosen;
  for (const Match& match : matches) {
    if (taken[match.begin] || taken[match.end - 1]) continue;
    std::fill(taken.begin() + match.begin, taken.begin() + match.end, true);
    chosen.push_back(match);
  }
  std::sort(chosen.begin(), chosen.end(),
            [](const Match& a, const Match& b) { return a.begin < b.begin; });
  return chosen;
}

bool SpecialMatcher::strips(int32_t token) const {
  if (!strip_after_) return false;
  std::string_view text = vocabulary_->text(token);
  return text != "<unk>" && text != "<s>" && text != "<|endoftext|>";
}

std::vector<TextPiece> SpecialMatcher::split(std::string_view text, bool all) const {
  std::vector<TextPiece> pieces;
  std::vector<Match> matches = find_all(text, all);
  if (!matches.empty()) matches = choose(std::move(matches), text.size());
  size_t at = 0;
  auto add_text = [&](size_t end) {
    if (!pieces.empty() && strips(pieces.back().token)) {
      at = std::min(end, text.find_first_not_of(kAsciiSpace, at));
    }
    if (at < end) pieces.push_back({-1, text.substr(at, end - at)});
  };
  for (const Match& match : matches) {
    add_text(match.begin);
    pieces.push_back({match.token, text.substr(match.begin, match.end - match.begin)});
    at = match.end;
  }
  add_text(text.size());
  return pieces;
}

}  // namespace spillway

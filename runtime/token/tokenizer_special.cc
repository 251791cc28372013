// See tokenizer_special.h.
#include "runtime/token/tokenizer_special.h"

#include <algorithm>
#include <string_view>

namespace spillway {
namespace {

// Real ones have under 100 bytes; a hostile vocabulary must not make each position cost megabytes.
constexpr size_t kMaxSpecialBytes = 1024;
constexpr std::string_view kAsciiSpace = " \t\n\v\f\r";

}  // namespace

SpecialMatcher::SpecialMatcher(const Vocabulary& vocabulary, bool strip_after)
    : vocabulary_(&vocabulary), strip_after_(strip_after) {
  nodes_.emplace_back();
  for (int32_t id = 0; id < vocabulary.size(); ++id) {
    TokenKind kind = vocabulary.kind(id);
    if (vocabulary.text(id).size() > kMaxSpecialBytes) continue;
    if (kind == TokenKind::kControl || kind == TokenKind::kUserDefined ||
        kind == TokenKind::kUnknown) {
      insert(id, vocabulary.text(id));
    }
  }
}

int32_t SpecialMatcher::child_of(int32_t node, char byte) const {
  int32_t child = nodes_[node].child;
  while (child >= 0 && nodes_[child].byte != byte) child = nodes_[child].sibling;
  return child;
}

void SpecialMatcher::insert(int32_t token, std::string_view text) {
  begins_[static_cast<uint8_t>(text[0])] = true;
  int32_t node = 0;
  for (char byte : text) {
    int32_t child = child_of(node, byte);
    if (child < 0) {
      child = static_cast<int32_t>(nodes_.size());
      nodes_.push_back({-1, -1, nodes_[node].child, byte});
      nodes_[node].child = child;
    }
    node = child;
  }
  nodes_[node].token = token;
}

std::vector<SpecialMatcher::Match> SpecialMatcher::find_all(std::string_view text, bool all) const {
  std::vector<Match> matches;
  for (size_t begin = 0; begin < text.size(); ++begin) {
    if (!begins_[static_cast<uint8_t>(text[begin])]) continue;
    int32_t node = 0;
    for (size_t at = begin; at < text.size(); ++at) {
      node = child_of(node, text[at]);
      if (node < 0) break;
      int32_t token = nodes_[node].token;
      if (token < 0) continue;
      if (all || vocabulary_->kind(token) == TokenKind::kUserDefined) {
        matches.push_back({token, begin, at + 1});
      }
    }
  }
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

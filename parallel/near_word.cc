// See near_word.h.
#include "parallel/near_word.h"

#include <algorithm>
#include <cctype>
#include <vector>

#include "parallel/size_text.h"

namespace spillway {
namespace {

char lower(char c) { return static_cast<char>(std::tolower(static_cast<unsigned char>(c))); }

// Levenshtein's distance, row by row.
size_t distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j < row.size(); ++j) row[j] = j;
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i + 1;
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t change = diagonal + (lower(a[i]) == lower(b[j]) ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({change, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

}  // namespace

std::string near_word(std::string_view word, std::span<const std::string> words) {
  constexpr size_t kLongest = 256;  // longer words are nobody's typing error
  constexpr size_t kMost = 4;
  if (word.size() > kLongest) return "";
  size_t least = kLongest;
  std::vector<std::string> found;
  for (const std::string& candidate : words) {
    const size_t d = distance(word, candidate);
    const size_t most = std::max<size_t>(2, std::max(word.size(), candidate.size()) / 3);
    if (d > least || d > most) continue;
    if (d < least) found.clear();
    least = d;
    found.push_back(candidate);
  }
  std::string text;
  for (size_t i = 0; i < found.size() && i < kMost; ++i) {
    const bool last = i + 1 == std::min(found.size(), kMost);
    append_item(text, last ? " or " : ", ", found[i]);
  }
  return text;
}

}  // namespace spillway

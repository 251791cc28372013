// WordCache: the words of one text that were tokenised already, and where their ids lie in the ids
// that the text has so far: half of the words of running text repeat one of the last thousand.
// Called by Bpe and Spm. Owned by one encode(), used by its thread. Owns no text and no ids.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace spillway {

class WordCache {
 public:
  // text_bytes: a short text gets a small table.
  explicit WordCache(size_t text_bytes)
      : entries_(std::bit_ceil(std::clamp<size_t>(text_bytes / 8, 16, 16384))) {}

  // Appends the ids of a word that was put() before; false when it is not there.
  bool append(std::string_view word, std::vector<int32_t>& ids) const {
    if (word.size() > kLongest) return false;
    const Entry& entry = entries_[place(word)];
    if (entry.word != word || word.empty()) return false;
    const size_t before = ids.size();
    ids.resize(before + entry.count);
    std::copy_n(ids.begin() + static_cast<int64_t>(entry.begin), entry.count,
                ids.begin() + static_cast<int64_t>(before));
    return true;
  }

  // The word's ids are those from begin to the end. The word's text must stay.
  void put(std::string_view word, size_t begin, const std::vector<int32_t>& ids) {
    if (word.size() <= kLongest) entries_[place(word)] = {word, begin, ids.size() - begin};
  }

 private:
  static constexpr size_t kLongest = 32;
  struct Entry {
    std::string_view word;
    size_t begin = 0;
    size_t count = 0;
  };

  size_t place(std::string_view word) const {
    uint64_t first = 0;
    uint64_t last = 0;
    const size_t piece = std::min<size_t>(word.size(), 8);
    if (piece > 0) {
      std::memcpy(&first, word.data(), piece);
      std::memcpy(&last, word.data() + word.size() - piece, piece);
    }
    uint64_t h = (first ^ word.size()) * 0x9E3779B97F4A7C15ull;  // 2^64 / golden ratio
    h = (h ^ (h >> 29) ^ last) * 0x9E3779B97F4A7C15ull;
    return (h >> 40) & (entries_.size() - 1);
  }

  std::vector<Entry> entries_;
};

}  // namespace spillway

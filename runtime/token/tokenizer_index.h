// TextIndex: token text -> id, an open-addressing table of eight bytes a slot over texts that lie
// elsewhere. Called by Vocabulary. No std::unordered_map: its node for each of 128 000 tokens costs
// memory and time, and the first answer waits for the vocabulary.
// Thread: immutable once filled. Owns the slots, not the texts.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

namespace spillway {

class TextIndex {
 public:
  // The id of the first text that was there before, or -1 when all are distinct.
  int32_t fill(std::span<const std::string_view> texts) {
    texts_ = texts;
    size_t capacity = 16;
    while (capacity * 3 < texts.size() * 4 + 4) capacity *= 2;
    slots_.assign(capacity, Slot{0, -1});
    for (size_t id = 0; id < texts.size(); ++id) {
      Slot& slot = slots_[place(texts[id])];
      if (slot.id >= 0) return static_cast<int32_t>(id);
      slot = {tag(hash(texts[id])), static_cast<int32_t>(id)};
    }
    return -1;
  }

  // The text's id, or -1.
  int32_t find(std::string_view text) const { return slots_.empty() ? -1 : slots_[place(text)].id; }

 private:
  struct Slot {
    uint32_t tag;
    int32_t id;
  };

  static uint64_t hash(std::string_view text) {
    constexpr uint64_t kOdd = 0x9E3779B97F4A7C15ull;  // 2^64 / golden ratio
    uint64_t h = text.size() * kOdd;
    while (text.size() >= 8) {
      uint64_t word;
      std::memcpy(&word, text.data(), 8);
      h = (h ^ word) * kOdd;
      h ^= h >> 29;
      text.remove_prefix(8);
    }
    uint64_t rest = 0;
    if (!text.empty()) std::memcpy(&rest, text.data(), text.size());
    h = (h ^ rest) * kOdd;
    h ^= h >> 32;
    h *= kOdd;
    return h ^ (h >> 29);
  }
  static uint32_t tag(uint64_t h) { return static_cast<uint32_t>(h >> 32); }

  // The slot that holds the text, or the empty one where it belongs.
  size_t place(std::string_view text) const {
    uint64_t h = hash(text);
    size_t mask = slots_.size() - 1;
    size_t at = h & mask;
    while (slots_[at].id >= 0 && (slots_[at].tag != tag(h) || texts_[slots_[at].id] != text)) {
      at = (at + 1) & mask;
    }
    return at;
  }

  std::span<const std::string_view> texts_;
  std::vector<Slot> slots_;
};

}  // namespace spillway

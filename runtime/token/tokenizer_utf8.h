// UTF-8, strictly as The Unicode Standard 15.0 section 3.9 (table 3-7) has it: no overlong forms,
// no surrogates, nothing above U+10FFFF. Called by the tokenisers and the detokeniser.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace spillway {

// What lies at the front of a non-empty text.
struct Utf8Front {
  enum Kind { kWhole, kUnfinished, kInvalid } kind;
  // Bytes of the whole character, of the beginning of one that the text's end cuts off, or of the
  // longest invalid piece that stands for one U+FFFD.
  int bytes;
};

inline Utf8Front utf8_front(std::string_view text) {
  auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  uint8_t lead = byte(0);
  if (lead < 0x80) return {Utf8Front::kWhole, 1};
  if (lead < 0xC2 || lead > 0xF4) return {Utf8Front::kInvalid, 1};
  int length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  // Only the second byte's range depends on the lead.
  uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  for (int i = 1; i < length; ++i) {
    if (static_cast<size_t>(i) == text.size()) return {Utf8Front::kUnfinished, i};
    if (byte(i) < low || byte(i) > high) return {Utf8Front::kInvalid, i};
    low = 0x80;
    high = 0xBF;
  }
  return {Utf8Front::kWhole, length};
}

// Bytes of the longest prefix that is valid UTF-8.
inline size_t utf8_valid_prefix(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    if (static_cast<uint8_t>(text[at]) < 0x80) {
      ++at;
      continue;
    }
    Utf8Front front = utf8_front(text.substr(at));
    if (front.kind != Utf8Front::kWhole) break;
    at += front.bytes;
  }
  return at;
}

}  // namespace spillway

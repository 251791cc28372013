// Small vocabularies whose ids can be reasoned out by hand. Called by the tokeniser tests.
#pragma once

#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "runtime/token/tokenizer.h"
#include "tests/support/gguf_builder.h"
#include "tests/support/temp_dir.h"

namespace spillway::testing {

// GPT-2's letter for a byte, worked out anew: printable Latin-1 is itself, the rest follow in order
// from U+0100.
inline std::string byte_letter(int byte) {
  auto printable = [](int b) {
    return (b > 0x20 && b < 0x7F) || (b > 0xA0 && b <= 0xFF && b != 0xAD);
  };
  int letter = byte;
  if (!printable(byte)) {
    letter = 0x100;
    for (int b = 0; b < byte; ++b) letter += printable(b) ? 0 : 1;
  }
  if (letter < 0x80) return std::string(1, static_cast<char>(letter));
  return {static_cast<char>(0xC0 + letter / 64), static_cast<char>(0x80 + letter % 64)};
}

struct VocabParts {
  std::vector<std::string> tokens;
  std::vector<int32_t> types;
  std::vector<float> scores;
  std::vector<std::string> merges;

  int add(const std::string& token, int type = 1, float score = 0) {
    tokens.push_back(token);
    types.push_back(type);
    scores.push_back(score);
    return static_cast<int>(tokens.size()) - 1;
  }
};

// Ids 0 to 255 are the bytes; then he 256, ll 257, hell 258, hello 259, " w" 260, or 261,
// " wor" 262, ld 263, " world" 264, in the order of their merges; then special tokens.
inline VocabParts gpt2_parts() {
  VocabParts parts;
  for (int byte = 0; byte < 256; ++byte) parts.add(byte_letter(byte));
  std::string blank = byte_letter(' ');
  const std::pair<std::string, std::string> merges[] = {
      {"h", "e"}, {"l", "l"},          {"he", "ll"}, {"hell", "o"},         {blank, "w"},
      {"o", "r"}, {blank + "w", "or"}, {"l", "d"},   {blank + "wor", "ld"},
  };
  for (const auto& [left, right] : merges) {
    parts.add(left + right);
    parts.merges.push_back(left + " " + right);
  }
  parts.add("<|im_start|>", 3);  // 265
  parts.add("<|im_end|>", 3);    // 266
  parts.add("<tool>", 4);        // 267
  parts.add("<to", 4);           // 268
  parts.add("<|unused|>", 5);    // 269
  return parts;
}

inline GgufBuilder gpt2_vocab(const VocabParts& parts, const std::string& pre = "gpt-2") {
  GgufBuilder builder;
  builder.set_string("tokenizer.ggml.model", "gpt2")
      .set_string("tokenizer.ggml.pre", pre)
      .set_strings("tokenizer.ggml.tokens", parts.tokens)
      .set_array<int32_t>("tokenizer.ggml.token_type", parts.types)
      .set_strings("tokenizer.ggml.merges", parts.merges)
      .set_u32("tokenizer.ggml.bos_token_id", 265)
      .set_u32("tokenizer.ggml.eos_token_id", 266);
  return builder;
}

// <unk> 0, <s> 1, </s> 2, bytes 3 to 258, blank 259, a b h e l o w 260 to 266, then he 267, ll 268,
// hell 269, hello 270, "_hello" 271, aa 272, ab 273, "_w" 274, <sep> 275 (user-defined).
inline VocabParts spm_parts() {
  VocabParts parts;
  parts.add("<unk>", 2);
  parts.add("<s>", 3);
  parts.add("</s>", 3);
  for (int byte = 0; byte < 256; ++byte) {
    char text[8];
    std::snprintf(text, sizeof(text), "<0x%02X>", byte);
    parts.add(text, 6);
  }
  parts.add("▁", 1, -100);
  for (const char* letter : {"a", "b", "h", "e", "l", "o", "w"}) parts.add(letter, 1, -100);
  parts.add("he", 1, -1);
  parts.add("ll", 1, -2);
  parts.add("hell", 1, -3);
  parts.add("hello", 1, -4);
  parts.add("▁hello", 1, -5);
  parts.add("aa", 1, -2);
  parts.add("ab", 1, -1);
  parts.add("▁w", 1, -6);
  parts.add("<sep>", 4);
  return parts;
}

inline GgufBuilder spm_vocab(const VocabParts& parts) {
  GgufBuilder builder;
  builder.set_string("tokenizer.ggml.model", "llama")
      .set_strings("tokenizer.ggml.tokens", parts.tokens)
      .set_array<int32_t>("tokenizer.ggml.token_type", parts.types)
      .set_array<float>("tokenizer.ggml.scores", parts.scores);
  return builder;
}

inline Tokenizer make_tokenizer(const GgufBuilder& builder) {
  TempDir dir;  // the mapping outlives the file's name
  return Tokenizer::make(Gguf::open(builder.write(dir.file("vocab.gguf"))));
}

}  // namespace spillway::testing

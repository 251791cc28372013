// SpecialMatcher: finds the special tokens that are spelled out in a text ("<|im_start|>"), before
// the rest is tokenised. Called by Tokenizer. Longer tokens win over shorter ones wherever they
// overlap, as in llama.cpp.
// Thread: immutable after construction.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "runtime/token/tokenizer_vocab.h"

namespace spillway {

// A piece of a text: a special token, or (token < 0) text to be tokenised.
struct TextPiece {
  int32_t token;
  std::string_view text;
};

class SpecialMatcher {
 public:
  // strip_after: white space behind a special token is not text (Phi-3).
  SpecialMatcher(const Vocabulary& vocabulary, bool strip_after);

  // all: also control and unknown tokens, not only the user-defined ones.
  std::vector<TextPiece> split(std::string_view text, bool all) const;

 private:
  struct Special {
    std::string_view text;
    int32_t token;
  };
  struct Match {
    int32_t token;
    size_t begin;
    size_t end;
  };
  void find_at(std::string_view text, size_t begin, bool all, std::vector<Match>& matches) const;
  std::vector<Match> find_all(std::string_view text, bool all) const;
  std::vector<Match> choose(std::vector<Match> matches, size_t text_bytes) const;
  bool strips(int32_t token) const;

  const Vocabulary* vocabulary_;
  bool strip_after_;
  // In the order of their bytes: 24 bytes a token, where a trie would take 16 bytes a byte, and a
  // hostile file may consist of such tokens.
  std::vector<Special> specials_;
  std::array<size_t, 257> begins_{};  // specials_ that begin with byte b: [begins_[b], [b + 1])
};

}  // namespace spillway

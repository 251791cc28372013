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
  // A trie in one vector: children of a node are a chain through `sibling`.
  struct Node {
    int32_t token = -1;
    int32_t child = -1;
    int32_t sibling = -1;
    char byte = 0;
  };
  struct Match {
    int32_t token;
    size_t begin;
    size_t end;
  };
  void insert(int32_t token, std::string_view text);
  int32_t child_of(int32_t node, char byte) const;
  std::vector<Match> find_all(std::string_view text, bool all) const;
  std::vector<Match> choose(std::vector<Match> matches, size_t text_bytes) const;
  bool strips(int32_t token) const;

  const Vocabulary* vocabulary_;
  bool strip_after_;
  std::vector<Node> nodes_;
  std::array<bool, 256> begins_{};  // bytes that a special token begins with
};

}  // namespace spillway

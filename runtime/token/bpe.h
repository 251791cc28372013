// Bpe: byte-level byte pair encoding ("gpt2" vocabularies). Text is cut into words, each byte of a
// word becomes a token, and neighbours are merged in the order of the file's merge list. Called by
// Tokenizer.
// Vocabularies of plain text (Gemma 4) begin with characters instead of bytes.
// Source: R. Sennrich et al., arXiv 1508.07909; bytes as letters: GPT-2's encoder.
// Thread: immutable after construction; encode() may be called from any thread.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/token/pretokenize.h"
#include "runtime/token/rank_queue.h"
#include "runtime/token/tokenizer_vocab.h"

namespace spillway {

class Bpe {
 public:
  // Throws Error when the merges are missing, malformed or name what is no token, and for an
  // unknown pre-tokeniser. The vocabulary must outlive this.
  explicit Bpe(const Vocabulary& vocabulary);

  // Appends the ids of a text without special tokens. O(n log n) in the longest word. A byte that
  // is no token is left out, as llama.cpp does: the unknown token of these files is often one that
  // ends the text (SmolLM2: <|endoftext|>).
  void encode(std::string_view text, std::vector<int32_t>& ids) const;

  // The bytes that a token's text stands for; a letter that stands for no byte is itself.
  static std::string decode_text(std::string_view text);

  const PretokenizerKind& pretokenizer() const { return pretokenizer_.kind(); }

 private:
  static constexpr uint32_t kNoRank = UINT32_MAX;
  struct Merge {
    uint64_t pair;  // left id and right id
    uint32_t rank;  // lower merges first; kNoRank: an empty slot
    int32_t merged;
  };
  // Reused between the words of one encode().
  struct Scratch {
    std::vector<int32_t> ids;
    std::vector<Merge> merges;  // of ids[i] and ids[i + 1]
    RankQueue queue;
    std::string letters;
    std::vector<std::string_view> unknown;  // characters that are no tokens, in order
  };

  void read_merges();
  void add_merge(std::string_view line, uint32_t rank);
  const Merge& find_merge(int32_t left, int32_t right) const;
  void encode_word(std::string_view word, Scratch& scratch, std::vector<int32_t>& ids) const;
  void split_bytes(std::string_view word, Scratch& scratch) const;
  bool split_characters(std::string_view word, Scratch& scratch) const;
  void merge_short(Scratch& scratch) const;
  void merge_long(Scratch& scratch) const;

  const Vocabulary* vocabulary_;
  Pretokenizer pretokenizer_;
  std::array<int32_t, 256> byte_ids_;  // -1: the byte is no token
  std::vector<Merge> merges_;          // open addressing
  uint64_t mask_ = 0;
  uint32_t n_ranks_ = 0;
};

}  // namespace spillway

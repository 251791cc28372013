// Spm: SentencePiece's BPE ("llama" vocabularies). Characters are merged to the tokens of the
// highest score; what is no token is spelled in bytes. Called by Tokenizer.
// Source: T. Kudo and J. Richardson, arXiv 1808.06226; ties and fallback as in llama.cpp.
// Thread: immutable after construction; encode() may be called from any thread.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/token/rank_queue.h"
#include "runtime/token/tokenizer_vocab.h"
#include "runtime/token/word_cache.h"

namespace spillway {

class Spm {
 public:
  // The vocabulary must outlive this.
  explicit Spm(const Vocabulary& vocabulary);

  // Appends the ids of a text without special tokens, to which a blank is prepended when
  // space_before. O(n log n) in the longest stretch between blanks.
  void encode(std::string_view text, bool space_before, std::vector<int32_t>& ids) const;

  // The text that a normal token stands for: "▁" is a blank.
  static std::string decode_text(std::string_view text);

 private:
  static constexpr uint32_t kNoRank = UINT32_MAX;
  struct Symbol {
    const char* text;
    int32_t bytes;  // 0: merged into another
    int32_t next;   // -1 at the end
    int32_t previous;
    uint32_t rank;  // of the token that this and the next one make
  };
  // Reused between the stretches of one encode().
  struct Scratch {
    std::vector<Symbol> symbols;
    RankQueue queue;
  };
  void rank_scores();
  void cut_alone(std::string_view text, WordCache& cache, Scratch& scratch,
                 std::vector<int32_t>& ids) const;
  void encode_stretch(std::string_view text, Scratch& scratch, std::vector<int32_t>& ids) const;
  void rank_pair(std::vector<Symbol>& symbols, int32_t left) const;
  static int32_t join(std::vector<Symbol>& symbols, int32_t left);
  void merge_short(std::vector<Symbol>& symbols) const;
  void merge_long(Scratch& scratch) const;
  void spell(std::string_view text, std::vector<int32_t>& ids) const;

  const Vocabulary* vocabulary_;
  // Bytes that come right before a "▁" in some token: between others and a "▁" nothing ever merges,
  // so the text is cut there.
  std::array<bool, 256> joins_blank_{};
  // ASCII bytes that occur in no token but their own (mostly "\n"): the text is cut around them.
  std::array<bool, 128> alone_{};
  std::array<int32_t, 256> byte_ids_;  // of "<0xNN>", else of the byte itself, or -1
  // By id: 0 is the highest score, equal scores have equal ranks.
  std::vector<uint32_t> ranks_;
};

}  // namespace spillway

// Pretokenizer: cuts text into words before byte-level BPE merges inside of each, by the patterns
// that the model was trained with (metadata key tokenizer.ggml.pre). Called by Bpe.
// Thread: immutable after make(); split() may be called from any thread.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

struct pcre2_real_match_data_8;  // PCRE2's own, so that its header stays out of this one

namespace spillway {

// In place of a pattern, for what a pattern would do in quadratic time: each run of numbers is cut
// into threes from its right end. What comes before a run stays with the run's first one to three
// numbers, as in llama.cpp; the patterns that follow part them, and see each other's text in their
// look-aheads.
inline constexpr std::string_view kThreesFromRight = "threes of \\p{N} from the right";
// The same of runs of 0-9, where a run of whole threes is also cut off from what comes before it.
inline constexpr std::string_view kAsciiThreesFromRight = "threes of [0-9] from the right";

// One kind of pre-tokeniser. The patterns are applied one after another: each cuts every piece that
// the ones before it left into its matches and what lies between them.
struct PretokenizerKind {
  std::string_view names;  // as in the metadata, separated by blanks
  std::vector<std::string_view> patterns;
  bool whole_words = false;  // a word that is a token is that token, whatever the merges say
  bool adds_bos = false;     // unless the metadata says otherwise
  // Tokens are UTF-8 as it is, with "▁" for a blank and "<0xNN>" for bytes, instead of GPT-2's
  // letters for bytes; a run of line ends that is a token is that token.
  bool plain_text = false;
};
// The table, in pretokenize_table.cc.
std::span<const PretokenizerKind> pretokenizer_kinds();

class Pretokenizer {
 public:
  // name: the metadata's value; "" means "default". An unknown name is an Error that lists the
  // known ones, as llama.cpp refuses it: ids of the wrong patterns would look almost right. where:
  // the file, for that Error.
  static Pretokenizer make(std::string_view name, const std::string& where);
  ~Pretokenizer();
  Pretokenizer(Pretokenizer&&) noexcept;
  Pretokenizer& operator=(Pretokenizer&&) noexcept;

  const PretokenizerKind& kind() const { return *kind_; }

  // Appends the words of a text: views into it, in order, together the whole text. Bytes that are
  // not UTF-8 are words of their own. Throws Error when a pattern runs out of resources.
  void split(std::string_view text, std::vector<std::string_view>& words) const;

 private:
  struct Pattern;
  Pretokenizer() = default;
  static std::unique_ptr<Pattern> compile(std::string_view text);
  void cut(const Pattern& pattern, pcre2_real_match_data_8* match, std::string_view piece,
           std::vector<std::string_view>& pieces) const;

  const PretokenizerKind* kind_ = nullptr;
  std::vector<std::unique_ptr<Pattern>> patterns_;
};

// A pattern as it is published, in which \s and \S mean Unicode's White_Space, in PCRE2's words:
// its own \s also matches U+180E, which White_Space lost in Unicode 6.3.
std::string spell_out_white_space(std::string_view pattern);

}  // namespace spillway

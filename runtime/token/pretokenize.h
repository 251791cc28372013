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

namespace spillway {

// One kind of pre-tokeniser. The patterns are applied one after another: each cuts every piece that
// the ones before it left into its matches and what lies between them.
struct PretokenizerKind {
  std::string_view names;  // as in the metadata, separated by blanks
  std::vector<std::string_view> patterns;
  bool whole_words = false;  // a word that is a token is that token, whatever the merges say
  bool adds_bos = false;     // unless the metadata says otherwise
};
// The table, in pretokenize_table.cc.
std::span<const PretokenizerKind> pretokenizer_kinds();

class Pretokenizer {
 public:
  // name: the metadata's value; "" means "default". where: the file, for the Error of an unknown
  // name, which lists the known ones.
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
  void cut(const Pattern& pattern, std::string_view piece,
           std::vector<std::string_view>& pieces) const;

  const PretokenizerKind* kind_ = nullptr;
  std::vector<std::unique_ptr<Pattern>> patterns_;
};

// A pattern as it is published, in which \s and \S mean Unicode's White_Space, in PCRE2's words:
// its own \s also matches U+180E, which White_Space lost in Unicode 6.3.
std::string spell_out_white_space(std::string_view pattern);

}  // namespace spillway
